#include "onednn.h"

#include <cstdio>
#include <oneapi/dnnl/dnnl.hpp>

namespace seresnet::cpu {

namespace {

std::string dotted(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

// Only names that oneDNN 2.x and 3.x share; a newer one is shown as its bits.
std::string isaName(dnnl_cpu_isa_t isa) {
  switch (isa) {
    case dnnl_cpu_isa_sse41:
      return "sse41";
    case dnnl_cpu_isa_avx:
      return "avx";
    case dnnl_cpu_isa_avx2:
      return "avx2";
    case dnnl_cpu_isa_avx2_vnni:
      return "avx2_vnni";
    case dnnl_cpu_isa_avx512_core:
      return "avx512_core";
    case dnnl_cpu_isa_avx512_core_vnni:
      return "avx512_core_vnni";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "avx512_core_bf16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "avx512_core_amx";
    default: {
      char bits[24];
      std::snprintf(bits, sizeof bits, "isa 0x%x", static_cast<unsigned>(isa));
      return bits;
    }
  }
}

std::string threadingName(unsigned runtime) {
  switch (runtime) {
    case DNNL_RUNTIME_SEQ:
      return "sequential";
    case DNNL_RUNTIME_OMP:
      return "OpenMP";
    case DNNL_RUNTIME_TBB:
      return "TBB";
    case DNNL_RUNTIME_THREADPOOL:
      return "thread pool";
    default:
      return "runtime " + std::to_string(runtime);
  }
}

}  // namespace

std::optional<OnednnInfo> onednn() {
  const dnnl_version_t* library = dnnl_version();
  return OnednnInfo{dotted(DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH),
                    dotted(library->major, library->minor, library->patch), isaName(dnnl_get_effective_cpu_isa()),
                    threadingName(library->cpu_runtime)};
}

}  // namespace seresnet::cpu
