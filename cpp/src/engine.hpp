// Engines of TensorRT or TensorRT-RTX, run without onnxruntime. Compiled (tensorrt.cpp) where CMake finds the SDK, whose
// headers decide which of the two it is; else refused (no_tensorrt.cpp).
#pragma once

#include <memory>
#include <string>

#include "bundle.hpp"
#include "executor.hpp"

namespace pd {

// The bundle's engine for a stage of a variant. `runtime` is "tensorrt" or "tensorrt-rtx"; `library` is the file of its
// library, or empty for what PERCEIVER_DEPLOY_TENSORRT names, else the system's. Throws MissingError where this library
// was built without it or the GPU, driver or TensorRT is not here, BundleError where the engine was built for something
// else.
std::unique_ptr<Executor> open_engine(const Bundle &bundle, const std::string &runtime, const std::string &variant,
                                      const std::string &stage, const std::string &library);

}  // namespace pd
