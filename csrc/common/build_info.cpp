// Facts about this binary, as JSON, for `queryseg.ops.build_info`.

#include <torch/headeronly/version.h>

#include <string>

#include "common/cpu/capability.h"

#define QUERYSEG_TEXT_OF(...) #__VA_ARGS__
#define QUERYSEG_TEXT(...) QUERYSEG_TEXT_OF(__VA_ARGS__)

#if defined(_WIN32)
#define QUERYSEG_EXPORT extern "C" __declspec(dllexport)
#else
#define QUERYSEG_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " QUERYSEG_TEXT(_MSC_VER);
#else
  return "unknown";
#endif
}

}  // namespace

QUERYSEG_EXPORT const char* queryseg_build_info() {
  static const std::string info =
      "{\"compiler\": \"" + compiler() +
      "\", \"torch\": \"" QUERYSEG_TEXT(TORCH_VERSION_MAJOR) "." QUERYSEG_TEXT(TORCH_VERSION_MINOR)
      "\", \"cuda\": \"" QUERYSEG_TEXT(QUERYSEG_CUDA_VERSION)
      "\", \"cuda_architectures\": \"" QUERYSEG_TEXT(QUERYSEG_CUDA_ARCHITECTURES)
      "\", \"cpu_capability\": \"" +
      std::string(queryseg::cpu_capability_name(queryseg::cpu_capability())) + "\"}";
  return info.c_str();
}
