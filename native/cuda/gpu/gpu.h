#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/errors.h"

struct CUstream_st;
struct CUevent_st;

// The few calls of the CUDA runtime that the device "cuda" makes, and nothing else, so that a host build can stand in for
// them. They throw Error with the name of the call that failed, except for those that free. Built, never run on a GPU.
namespace seresnet::cuda::gpu {

using Stream = CUstream_st*;  // cudaStream_t
using Event = CUevent_st*;    // cudaEvent_t

struct Properties {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  size_t memory = 0;  // bytes
  int runtime = 0;    // versions, as 1000 * major + 10 * minor
  int driver = 0;
};

int count();
Properties properties(int device);

// Makes a device the calling thread's. Every thread that makes one of the calls below does this first.
void use(int device);

// Device memory, or null when there is no room for it.
void* allocate(size_t bytes);
void free(void* memory) noexcept;
// Host memory that copies run at full speed from, and beside everything else.
void* allocatePinned(size_t bytes);
void freePinned(void* memory) noexcept;

// Streams and events of their own; freed with the last owner.
std::shared_ptr<CUstream_st> makeStream();
std::shared_ptr<CUevent_st> makeEvent(bool timing = false);

void record(Event event, Stream stream);
void wait(Stream stream, Event event);  // what is put into the stream from now on waits for the event
void synchronize(Event event);          // without burning a CPU
void synchronize(Stream stream);
float milliseconds(Event from, Event to);

// Asynchronous copies and zeros.
void copyToDevice(Stream stream, void* to, const void* from, size_t bytes);
void copyToHost(Stream stream, void* to, const void* from, size_t bytes);
void copyOnDevice(Stream stream, void* to, const void* from, size_t bytes);
void clear(Stream stream, void* memory, size_t bytes);

// Work recorded once and put into a stream with one call.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Stream stream) = 0;
};

// Records what `work` puts into the stream; nothing runs yet. `work` must not synchronise or allocate. Throws Error where
// the device does not record it, and what `work` throws; the stream is as it was then.
std::unique_ptr<Graph> capture(Stream stream, const std::function<void()>& work);

// Waits for streams when its scope ends: memory declared before it is given back when nothing uses it any more, whatever
// throws in between.
class Drain {
 public:
  explicit Drain(std::vector<Stream> streams) : streams_(std::move(streams)) {}
  ~Drain() {
    try {
      for (const Stream stream : streams_) synchronize(stream);
    } catch (const Error&) {
      // the device is lost, which the next call tells: nothing runs on it any more
    }
  }
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;

  // Somebody else waits.
  void dismiss() { streams_.clear(); }

 private:
  std::vector<Stream> streams_;
};

}  // namespace seresnet::cuda::gpu
