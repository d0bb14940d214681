#include "engine.hpp"
#include "error.hpp"
#include "text.hpp"

namespace pd {

std::unique_ptr<Executor> open_engine(const Bundle &, const std::string &runtime, const std::string &,
                                      const std::string &, const std::string &) {
  throw MissingError(concat("Runtime ", repr(runtime), " cannot run here: this library was built without it. Build it ",
                            "where CMake finds the SDK's headers (TensorRT_ROOT and CUDAToolkit_ROOT), or use the "
                            "runtime onnxruntime, which runs on the CPU."));
}

}  // namespace pd
