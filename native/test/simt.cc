#include "simt.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "fiber.h"

namespace simt {

namespace {

constexpr size_t guard = 64;
constexpr unsigned char guardByte = 0xA5;
constexpr unsigned char poison = 0xFF;  // NaN in every float dtype, -1 in every integer

// Memory between two guard zones.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes), storage_(room(bytes)) {
    std::memset(storage_.get(), guardByte, room(bytes));
    std::memset(data(), poison, bytes);
    forbid(storage_.get(), front);
    forbid(data() + bytes, room(bytes) - front - bytes);
  }
  ~Guarded() { allow(storage_.get(), room(bytes_)); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return storage_.get() + front; }
  size_t bytes() const { return bytes_; }
  bool holds(const void* pointer) const { return pointer >= data() && pointer < data() + bytes_; }
  void spoil() { std::memset(data(), poison, bytes_); }

  // Whether somebody wrote beside the memory; under AddressSanitizer that would have been reported already.
  bool broken() const {
    if (sanitized) return false;
    const auto wrong = [](unsigned char byte) { return byte != guardByte; };
    unsigned char* end = storage_.get() + room(bytes_);
    return std::any_of(data() - guard, data(), wrong) || std::any_of(data() + bytes_, end, wrong);
  }

 private:
  static constexpr size_t front = 256;  // cudaMalloc's alignment
  static size_t room(size_t bytes) { return (front + bytes + guard + 255) / 256 * 256; }

  struct Aligned {
    explicit Aligned(size_t bytes) : pointer(static_cast<unsigned char*>(std::aligned_alloc(256, bytes))) {
      if (pointer == nullptr) fail("no %zu bytes of memory", bytes);
    }
    ~Aligned() { std::free(pointer); }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    unsigned char* get() const { return pointer; }
    unsigned char* pointer;
  };

  size_t bytes_;
  Aligned storage_;
};

struct Buffers {
  std::mutex mutex;
  std::map<void*, std::unique_ptr<Guarded>> all;
};

Buffers& buffers() {
  static Buffers result;
  return result;
}

enum class State { ready, block, cluster, warp, exited };

struct Thread {
  Fiber fiber;
  State state = State::ready;
  uint3 index;
  unsigned block = 0;   // of the cluster
  unsigned number = 0;  // in the block
  Where where;
  // the warp operation it waits at
  Collective kind = Collective::sync;
  uint32_t mask = 0;
  uint64_t value = 0;
  unsigned source = 0;
};

struct Block {
  uint3 index;
  unsigned first = 0;  // its first thread
  unsigned waiting = 0, exited = 0;
  std::unique_ptr<Guarded> dynamic;
  std::map<std::pair<const void*, unsigned>, std::unique_ptr<Guarded>> statics;  // by file and line
};

using PlaceName = char[160];

const char* text(const Where& where, PlaceName& name) {
  const char* file = std::strrchr(where.file_name(), '/');
  std::snprintf(name, sizeof(name), "%s:%u", file == nullptr ? where.file_name() : file + 1, where.line());
  return name;
}

bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

const char* nameOf(Collective kind) {
  return kind == Collective::shuffle ? "shuffle" : kind == Collective::ballot ? "vote" : "__syncwarp";
}

struct Scheduler {
  Device device;
  uint64_t order = 0;
  Counts counts;

  const Launch* launch = nullptr;
  const std::function<void()>* body = nullptr;
  std::vector<std::unique_ptr<Thread>> threads;  // of the cluster; kept for the next one
  std::vector<Block> blocks;
  std::vector<unsigned> schedule;
  std::mt19937_64 random;
  Thread* current = nullptr;
  unsigned perBlock = 0, clusterWaiting = 0;
  bool progress = false;

  Block& block() { return blocks[current->block]; }
  Thread& thread(unsigned block, unsigned number) { return *threads[block * perBlock + number]; }

  void run(const Launch& what, const std::function<void()>& kernel);
  void check(const Launch& what) const;
  void runCluster(uint3 origin);
  void permute();
  void resume(Thread& next);
  void wait(State state, const Where& where);
  void finish();
  void releaseBlock();
  void releaseCluster();
  bool tryWarp(Thread& arrived);
  void warpExited();
  [[noreturn]] void stuck();
};

thread_local Scheduler scheduler;

Queue streams = nullptr;

void Scheduler::check(const Launch& what) const {
  const dim3 &grid = what.grid, &shape = what.block;
  const uint64_t count = uint64_t{shape.x} * shape.y * shape.z;
  if (count == 0 || count > 1024 || shape.z > 64) fail("a block of %u x %u x %u threads", shape.x, shape.y, shape.z);
  if (grid.x == 0 || grid.x > 0x7fffffffU || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535)
    fail("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
  if (what.shared > device.sharedPerBlock)
    fail("%zu bytes of shared memory, %zu are all there is", what.shared, device.sharedPerBlock);
  if (what.cluster == 0 || what.cluster > 8 || grid.x % what.cluster != 0)
    fail("clusters of %u blocks in a grid of %u", what.cluster, grid.x);
  if (what.cluster > 1 && device.capability < 90) fail("clusters on a device of capability %d", device.capability);
}

void Scheduler::run(const Launch& what, const std::function<void()>& kernel) {
  if (current != nullptr) fail("a launch inside a kernel");
  launch = &what;
  body = &kernel;
  check(what);
  random.seed(order);
  blockDim = what.block;
  gridDim = what.grid;
  perBlock = what.block.x * what.block.y * what.block.z;
  while (threads.size() < size_t{perBlock} * what.cluster) threads.push_back(std::make_unique<Thread>());
  ++counts.kernels;
  // blocks run in any order too
  std::vector<uint3> origins;
  for (unsigned z = 0; z < what.grid.z; ++z)
    for (unsigned y = 0; y < what.grid.y; ++y)
      for (unsigned x = 0; x < what.grid.x; x += what.cluster) origins.push_back({x, y, z});
  if (order == 1) std::reverse(origins.begin(), origins.end());
  if (order > 1) std::shuffle(origins.begin(), origins.end(), random);
  for (const uint3& origin : origins) runCluster(origin);
  const std::lock_guard lock(buffers().mutex);
  for (const auto& [pointer, memory] : buffers().all)
    if (memory->broken()) fail("wrote outside a buffer of %zu bytes", memory->bytes());
  launch = nullptr;
}

void Scheduler::runCluster(uint3 origin) {
  blocks.clear();
  blocks.resize(launch->cluster);
  clusterWaiting = 0;
  for (unsigned rank = 0; rank < launch->cluster; ++rank) {
    Block& made = blocks[rank];
    made.index = {origin.x + rank, origin.y, origin.z};
    made.first = rank * perBlock;
    made.dynamic = std::make_unique<Guarded>(launch->shared);
    for (unsigned i = 0; i < perBlock; ++i) {
      Thread& each = thread(rank, i);
      const dim3& shape = launch->block;
      each.state = State::ready;
      each.index = {i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
      each.block = rank;
      each.number = i;
      each.fiber.start([] {
        (*scheduler.body)();
        scheduler.finish();
      });
    }
  }
  counts.blocks += launch->cluster;
  counts.threads += blocks.size() * perBlock;
  schedule.resize(blocks.size() * perBlock);
  for (unsigned i = 0; i < schedule.size(); ++i) schedule[i] = order == 1 ? static_cast<unsigned>(schedule.size()) - 1 - i : i;
  unsigned exited = 0;
  do {
    progress = false;
    if (order > 1) std::shuffle(schedule.begin(), schedule.end(), random);
    for (const unsigned i : schedule)
      if (threads[i]->state == State::ready) resume(*threads[i]);
    exited = 0;
    for (const Block& each : blocks) exited += each.exited;
    if (!progress) stuck();
  } while (exited < schedule.size());
  current = nullptr;
}

void Scheduler::resume(Thread& next) {
  progress = true;
  current = &next;
  threadIdx = next.index;
  blockIdx = block().index;
  ++counts.switches;
  next.fiber.resume();
}

void Scheduler::wait(State state, const Where& where) {
  current->state = state;
  current->where = where;
  current->fiber.pause();
}

// The running thread has returned from the kernel.
void Scheduler::finish() {
  current->state = State::exited;
  Block& mine = block();
  ++mine.exited;
  if (mine.waiting > 0 && mine.waiting + mine.exited == perBlock) stuck();
  warpExited();
  if (mine.exited == perBlock) {
    for (const auto& [place, memory] : mine.statics)
      if (memory->broken()) fail("wrote outside a static shared array of %zu bytes", memory->bytes());
    if (mine.dynamic->broken()) fail("wrote outside its %zu bytes of dynamic shared memory", mine.dynamic->bytes());
    // a block's shared memory is gone when the block is
    forbid(mine.dynamic->data(), mine.dynamic->bytes());
    if (!sanitized) mine.dynamic->spoil();
    for (const auto& [place, memory] : mine.statics) {
      forbid(memory->data(), memory->bytes());
      if (!sanitized) memory->spoil();
    }
  }
  current->fiber.end();
}

void Scheduler::releaseBlock() {
  Block& mine = block();
  PlaceName here, there;
  for (unsigned i = 0; i < perBlock; ++i) {
    Thread& each = thread(current->block, i);
    if (!same(each.where, current->where))
      fail("threads wait at different barriers: %u at %s, %u at %s", current->number, text(current->where, here), i,
           text(each.where, there));
  }
  for (unsigned i = 0; i < perBlock; ++i) thread(current->block, i).state = State::ready;
  mine.waiting = 0;
}

void Scheduler::releaseCluster() {
  for (unsigned i = 0; i < schedule.size(); ++i) threads[i]->state = State::ready;
  clusterWaiting = 0;
}

// Whether two waiting lanes take part in the same warp operation. __syncwarp may be reached along different ways.
bool together(const Thread& a, const Thread& b) {
  return a.kind == b.kind && a.mask == b.mask && (a.kind == Collective::sync || same(a.where, b.where));
}

// Completes the warp operation at which `arrived` waits, if all of its lanes do.
bool Scheduler::tryWarp(Thread& arrived) {
  const unsigned first = arrived.number & ~31U;
  PlaceName here, there;
  for (unsigned l = 0; l < 32; ++l) {
    if ((arrived.mask >> l & 1) == 0) continue;
    if (first + l >= perBlock) fail("the mask 0x%08x names lane %u, which is not there", arrived.mask, l);
    const Thread& other = thread(arrived.block, first + l);
    if (other.state == State::exited)
      fail("divergent %s at %s: lane %u of the mask 0x%08x has exited", nameOf(arrived.kind), text(arrived.where, here), l,
           arrived.mask);
    if (other.state != State::warp) return false;
    if (together(arrived, other)) continue;
    if ((other.mask >> (arrived.number & 31) & 1) == 0) return false;  // it may still come here after a narrower operation
    fail("divergent %s at %s: lane %u of the mask 0x%08x waits at a %s of the mask 0x%08x at %s", nameOf(arrived.kind),
         text(arrived.where, here), l, arrived.mask, nameOf(other.kind), other.mask, text(other.where, there));
  }
  uint64_t votes = 0;
  uint64_t values[32] = {};
  for (unsigned l = 0; l < 32; ++l) {
    if ((arrived.mask >> l & 1) == 0) continue;
    values[l] = thread(arrived.block, first + l).value;
    votes |= uint64_t{values[l] != 0} << l;
  }
  for (unsigned l = 0; l < 32; ++l) {
    if ((arrived.mask >> l & 1) == 0) continue;
    Thread& each = thread(arrived.block, first + l);
    if (each.kind == Collective::shuffle && (each.mask >> each.source & 1) == 0)
      fail("shuffle at %s: lane %u reads lane %u, which the mask 0x%08x leaves out", text(each.where, here), l, each.source,
           each.mask);
    each.value = each.kind == Collective::shuffle ? values[each.source] : votes;
    each.state = State::ready;
  }
  return true;
}

// Lanes that wait for the thread that just exited would wait forever.
void Scheduler::warpExited() {
  const unsigned first = current->number & ~31U;
  for (unsigned i = first; i < std::min(first + 32, perBlock); ++i) {
    Thread& each = thread(current->block, i);
    if (each.state == State::warp && (each.mask >> (current->number & 31) & 1) != 0) tryWarp(each);
  }
}

void Scheduler::stuck() {
  PlaceName place;
  for (const unsigned i : schedule) {
    Thread* each = threads[i].get();
    if (each->state != State::warp) continue;
    current = each;
    const unsigned first = each->number & ~31U;
    for (unsigned l = 0; l < 32; ++l) {
      if ((each->mask >> l & 1) == 0) continue;
      const Thread& other = thread(each->block, first + l);
      if (other.state == State::warp && together(*each, other)) continue;
      fail("divergent %s at %s: lane %u of the mask 0x%08x waits at %s", nameOf(each->kind), text(each->where, place), l,
           each->mask, other.state == State::warp ? "another warp operation" : "a barrier");
    }
  }
  for (const unsigned i : schedule) {
    Thread* each = threads[i].get();
    if (each->state != State::block && each->state != State::cluster) continue;
    current = each;
    unsigned waiting = 0, exited = 0;
    for (unsigned j = 0; j < perBlock; ++j) {
      waiting += thread(each->block, j).state == each->state;
      exited += thread(each->block, j).state == State::exited;
    }
    fail("divergent barrier at %s: %u of the block's %u threads wait, %u have exited", text(each->where, place), waiting,
         perBlock, exited);
  }
  fail("no thread can run");
}

}  // namespace

Device& device() { return scheduler.device; }
void setOrder(uint64_t order) { scheduler.order = order; }
Counts counts() { return scheduler.counts; }
void run(const Launch& launch, const std::function<void()>& body) { scheduler.run(launch, body); }

void setQueue(Queue queue) { streams = queue; }
void launch(CUstream_st* stream, const Launch& launch, std::function<void()> body) {
  if (streams != nullptr) streams(stream, launch, std::move(body));
  else run(launch, body);
}

void fail(const char* format, ...) {
  char why[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(why, sizeof(why), format, arguments);
  va_end(arguments);
  const Scheduler& s = scheduler;
  std::fflush(stdout);
  std::fprintf(stderr, "simt: %s", s.launch == nullptr ? "no kernel" : s.launch->kernel);
  if (s.current != nullptr) {
    const uint3 &b = s.blocks[s.current->block].index, &t = s.current->index;
    std::fprintf(stderr, ", block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
  }
  std::fprintf(stderr, ", order %llu: %s\n", static_cast<unsigned long long>(s.order), why);
  std::abort();
}

void* allocate(size_t bytes) {
  auto memory = std::make_unique<Guarded>(bytes);
  void* pointer = memory->data();
  const std::lock_guard lock(buffers().mutex);
  buffers().all.emplace(pointer, std::move(memory));
  return pointer;
}

void release(void* pointer) {
  if (pointer == nullptr) return;
  const std::lock_guard lock(buffers().mutex);
  const auto found = buffers().all.find(pointer);
  if (found == buffers().all.end()) fail("released %p, which is no buffer", pointer);
  if (found->second->broken()) fail("wrote outside a buffer of %zu bytes", found->second->bytes());
  buffers().all.erase(found);
}

unsigned lane() { return scheduler.current->number & 31; }
unsigned clusterRank() { return scheduler.current->block; }
unsigned clusterBlocks() { return scheduler.launch->cluster; }

void blockBarrier(Where where) {
  Scheduler& s = scheduler;
  Block& block = s.block();
  s.current->where = where;
  s.current->state = State::block;
  ++block.waiting;
  if (block.waiting == s.perBlock) return s.releaseBlock();
  if (block.waiting + block.exited == s.perBlock) s.stuck();
  s.wait(State::block, where);
}

void clusterBarrier(Where where) {
  Scheduler& s = scheduler;
  s.current->state = State::cluster;
  if (++s.clusterWaiting == s.schedule.size()) return s.releaseCluster();
  s.wait(State::cluster, where);
}

uint64_t exchange(Collective kind, uint32_t mask, uint64_t value, unsigned source, Where where) {
  Thread& me = *scheduler.current;
  PlaceName place;
  if ((mask >> (me.number & 31) & 1) == 0)
    fail("%s at %s: the mask 0x%08x leaves out the calling lane", nameOf(kind), text(where, place), mask);
  me.kind = kind;
  me.mask = mask;
  me.value = value;
  me.source = source;
  me.where = where;
  me.state = State::warp;
  if (!scheduler.tryWarp(me)) scheduler.wait(State::warp, where);
  return me.value;
}

void* dynamicShared(size_t alignment) {
  void* pointer = scheduler.block().dynamic->data();
  if (reinterpret_cast<uintptr_t>(pointer) % alignment != 0) fail("dynamic shared memory aligned to %zu bytes", alignment);
  return pointer;
}

void* sharedArray(size_t bytes, size_t alignment, Where where) {
  auto& memory = scheduler.block().statics[{where.file_name(), where.line()}];
  if (!memory) memory = std::make_unique<Guarded>(bytes);
  if (memory->bytes() != bytes || alignment > 256) fail("two shared arrays are declared in line %u", where.line());
  return memory->data();
}

void* mapShared(const void* pointer, unsigned rank) {
  Scheduler& s = scheduler;
  if (rank >= s.blocks.size()) fail("block %u of a cluster of %zu", rank, s.blocks.size());
  Block& other = s.blocks[rank];
  if (other.exited == s.perBlock) fail("shared memory of block %u of the cluster, which has exited", rank);
  const auto at = [&](const Guarded& mine, const Guarded& theirs) {
    return theirs.data() + (static_cast<const unsigned char*>(pointer) - mine.data());
  };
  if (s.block().dynamic->holds(pointer)) return at(*s.block().dynamic, *other.dynamic);
  for (const auto& [place, memory] : s.block().statics) {
    if (!memory->holds(pointer)) continue;
    auto& theirs = other.statics[place];
    if (!theirs) theirs = std::make_unique<Guarded>(memory->bytes());
    return at(*memory, *theirs);
  }
  fail("map_shared_rank of %p, which is not in the block's shared memory", pointer);
}

}  // namespace simt
