#pragma once

#include <napi.h>

namespace seresnet::node {

// openImages(): the handle of a thread that prepares images, one after the other.
Napi::Value openImages(const Napi::CallbackInfo& info);

// prepareImage(thread, samples, preparation): Promise<Uint8Array | Float32Array>. The samples' memory is freed when it is
// done: their array is detached.
Napi::Value prepareImage(const Napi::CallbackInfo& info);

// prepareImageHere(samples, preparation): the same on this thread, at once. For worker threads: an environment that closes frees
// the memory of its buffers before it waits for threads that read it.
Napi::Value prepareImageHere(const Napi::CallbackInfo& info);

}  // namespace seresnet::node
