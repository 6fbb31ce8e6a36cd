#include "bias_act.h"

#include "channelwise.h"

namespace seresnet::cuda {

namespace {

template <typename T>
struct GateAndBias {
  const T* gate;
  Vector bias;
  int64_t channels;

  template <int N>
  __device__ __forceinline__ void operator()(int64_t image, int64_t channel, Affine<N>& affine) const {
    at(bias, channel, 0.F, affine.shift);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      affine.center[i] = 0;
      affine.scale[i] = gate == nullptr ? 1.F : toFloat(gate[image * channels + channel + i]);
    }
  }
};

}  // namespace

void launchBiasAct(Stream stream, const BiasActArguments& a) {
  const bool perImage = a.gate != nullptr;
  withFloat("bias_act", a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    launchChannelwise<T>("bias_act", stream, a.x, a.residual, a.y, perImage ? a.images : 1,
                      perImage ? a.plane : a.images * a.plane, a.channels, a.relu,
                      GateAndBias<T>{static_cast<const T*>(a.gate), a.bias, a.channels});
  });
}

}  // namespace seresnet::cuda
