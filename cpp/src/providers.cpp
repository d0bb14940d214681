// onnxruntime's providers for NVIDIA GPUs. None is replaced by the CPU without a word: where one cannot be had, opening
// a session fails.
#include <algorithm>
#include <mutex>

#include "error.hpp"
#include "ort.hpp"
#include "text.hpp"

namespace pd {
namespace {

MissingError no_provider(const std::string &runtime, const std::string &reason) {
  return MissingError(concat("The runtime ", runtime, " cannot run here: ", reason,
                             ". It needs an NVIDIA GPU and an onnxruntime that was built with it; or use the runtime "
                             "onnxruntime, which runs on the CPU."));
}

void use_builtin(const Library &library, OrtSessionOptions *session, const std::string &runtime) {
  const OrtApi &api = library.api();
  if (runtime == "onnxruntime-tensorrt") {
    OrtTensorRTProviderOptionsV2 *made = nullptr;
    library.check(api.CreateTensorRTProviderOptions(&made));
    const Owned<OrtTensorRTProviderOptionsV2> provider(made, api.ReleaseTensorRTProviderOptions);
    library.check(api.SessionOptionsAppendExecutionProvider_TensorRT_V2(session, made));
  }
  OrtCUDAProviderOptionsV2 *made = nullptr;
  library.check(api.CreateCUDAProviderOptions(&made));
  const Owned<OrtCUDAProviderOptionsV2> provider(made, api.ReleaseCUDAProviderOptions);
  const char *keys[] = {"use_tf32"}, *values[] = {"0"};  // fp32 is held to the bounds of float32
  library.check(api.UpdateCUDAProviderOptions(made, keys, values, 1));
  library.check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(session, made));
}

#if ORT_API_VERSION >= 22  // the first that loads plugins

constexpr std::string_view kRtx = "NvTensorRTRTXExecutionProvider";

std::vector<const OrtEpDevice *> devices_of_rtx(const Library &library, const OrtApi &api) {
  const OrtEpDevice *const *devices = nullptr;
  std::size_t count = 0;
  library.check(api.GetEpDevices(library.environment(), &devices, &count));
  std::vector<const OrtEpDevice *> found;
  std::copy_if(devices, devices + count, std::back_inserter(found),
               [&](const OrtEpDevice *device) { return api.EpDevice_EpName(device) == kRtx; });
  return found;
}

void use_plugin(const Library &library, OrtSessionOptions *session, const GraphOptions &options) {
  const OrtApi *api = library.api(22);
  if (api == nullptr) throw no_provider(options.runtime, concat("onnxruntime ", library.version(), " loads no plugins"));
  if (options.plugin.empty()) {
    throw MissingError(concat("The runtime ", options.runtime,
                              " needs NVIDIA's plugin. Give the path of libonnxruntime_providers_nv_tensorrt_rtx.so as "
                              "the option 'plugin'; pip install onnxruntime-ep-nv-tensorrt-rtx-cu13 brings one."));
  }
  static std::mutex &mutex = *new std::mutex;  // never freed, as the libraries
  const std::lock_guard lock(mutex);
  auto devices = devices_of_rtx(library, *api);
  if (devices.empty()) {
    library.check(api->RegisterExecutionProviderLibrary(library.environment(), kRtx.data(), options.plugin.c_str()));
    devices = devices_of_rtx(library, *api);
  }
  if (devices.empty()) throw no_provider(options.runtime, concat(options.plugin, " finds no GPU"));
  library.check(api->SessionOptionsAppendExecutionProvider_V2(session, library.environment(), devices.data(), 1,
                                                              nullptr, nullptr, 0));
}

#else

void use_plugin(const Library &, OrtSessionOptions *, const GraphOptions &options) {
  throw MissingError(concat("The runtime ", options.runtime, " cannot run here: this library was built with headers of ",
                            "onnxruntime 1.", ORT_API_VERSION, ", and plugins are loaded from 1.22 on. Build it with ",
                            "newer ones: fetch_dependencies.sh FOLDER forky, or OnnxRuntime_ROOT."));
}

#endif

}  // namespace

void use_provider(const Library &library, OrtSessionOptions *session, const GraphOptions &options) {
  try {
    if (options.runtime == "onnxruntime-tensorrt-rtx") {
      use_plugin(library, session, options);
    } else {
      use_builtin(library, session, options.runtime);
    }
  } catch (const OrtFailure &failure) {
    throw no_provider(options.runtime, failure.message);
  }
}

}  // namespace pd
