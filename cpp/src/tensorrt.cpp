// A session's engine in TensorRT or TensorRT-RTX, whichever the headers are of. As runtimes/nvidia/loaded_engine.py.
#include <NvInferRuntime.h>
#include <dlfcn.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "dtypes.hpp"
#include "engine.hpp"
#include "error.hpp"
#include "files.hpp"
#include "gpu.hpp"
#include "output_check.hpp"
#include "side_car.hpp"
#include "text.hpp"

namespace pd {
namespace {

namespace trt = nvinfer1;

#ifdef TRT_MAJOR_RTX
constexpr const char *kRuntime = "tensorrt-rtx", *kTitle = "TensorRT-RTX", *kStem = "libtensorrt_rtx.so.";
#else
static_assert(NV_TENSORRT_MAJOR >= 10, "engines of bundles need TensorRT 10.12 or later");
constexpr const char *kRuntime = "tensorrt", *kTitle = "TensorRT", *kStem = "libnvinfer.so.";
#endif
constexpr const char *kVariable = "PERCEIVER_DEPLOY_TENSORRT";

// The last error that TensorRT named.
class Messages : public trt::ILogger {
 public:
  void log(Severity severity, const char *text) noexcept override {
    if (severity > Severity::kERROR) return;
    const std::lock_guard lock(mutex_);
    try {
      last_ = text;
    } catch (...) {  // no memory for it
    }
  }

  std::string last() const {
    const std::lock_guard lock(mutex_);
    return last_.empty() ? "no reason is given" : last_;
  }

 private:
  mutable std::mutex mutex_;
  std::string last_;
};

// TensorRT's library, of the version that the headers are of.
struct NvInfer {
  explicit NvInfer(const std::string &path) {
    const char *named = std::getenv(kVariable);
    const std::string file =
        !path.empty() ? path : named != nullptr && *named != 0 ? named : concat(kStem, NV_TENSORRT_MAJOR);
    void *handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: its threads may outlive a session
    if (handle == nullptr) throw missing(concat(kTitle, " cannot be loaded: ", ::dlerror()));
    using Part = std::int32_t (*)();
    for (const char *part : {"Major", "Minor", "Patch", "Build"}) {
      const auto get = reinterpret_cast<Part>(::dlsym(handle, concat("getInferLib", part, "Version").c_str()));
      if (get == nullptr) throw missing(concat(file, " is not ", kTitle, ": it has no getInferLib", part, "Version"));
      version += (version.empty() ? "" : ".") + std::to_string(get());
    }
    create = reinterpret_cast<decltype(create)>(::dlsym(handle, "createInferRuntime_INTERNAL"));
    if (create == nullptr) throw missing(concat(file, " is not ", kTitle, ": it has no createInferRuntime_INTERNAL"));
  }

  static MissingError missing(const std::string &piece) {
    return MissingError(concat("Runtime ", repr(kRuntime), " cannot run here: ", piece, ". Give the path of ", kStem,
                               NV_TENSORRT_MAJOR, " as the option 'library' or in the environment variable ", kVariable,
                               "."));
  }

  std::string version;
  void *(*create)(void *logger, std::int32_t version) = nullptr;
};

Machine machine_of(const Gpu &gpu, const std::string &version) {
  utsname system{};
  ::uname(&system);
  return {gpu.name(), gpu.compute_capability(), version, system.sysname, system.machine, driver_version()};
}

pd_dtype dtype_of(trt::DataType type) {
  switch (type) {
    case trt::DataType::kFLOAT:
      return PD_FLOAT32;
    case trt::DataType::kHALF:
      return PD_FLOAT16;
    case trt::DataType::kINT64:
      return PD_INT64;
    case trt::DataType::kINT32:
      return PD_INT32;
    case trt::DataType::kUINT8:
      return PD_UINT8;
    default:
      return 0;
  }
}

// One stream, a context for each profile, and buffers that every run uses again; runs of several threads take turns.
class Engine : public Executor {
 public:
  Engine(const Bundle &bundle, const std::string &name, const std::string &library)
      : side_car_(read_side_car(bundle, name)), gpu_(Driver::open(kRuntime)) {
    const OnGpu here(gpu_);
    const NvInfer nvinfer(library);
    version_ = nvinfer.version;
    require_loadable(side_car_, machine_of(gpu_, version_), bundle.path(), name);
    if (side_car_.weights_stripped) {
      throw BundleError(concat("Engine ", repr(name), " of ", bundle.path(),
                               " has no weights of its own, which this library does not put in. Build it again "
                               "without --strip-weights."));
    }
    const std::string content = read_file(bundle.file(find(bundle.manifest().engines, name)->file));
    runtime_.reset(static_cast<trt::IRuntime *>(nvinfer.create(&messages_, NV_TENSORRT_VERSION)));
    if (!runtime_) throw NvInfer::missing(concat(kTitle, " ", nvinfer.version, " cannot start: ", messages_.last()));
    engine_.reset(runtime_->deserializeCudaEngine(content.data(), content.size()));
    if (!engine_) {
      throw BundleError(concat(kTitle, " ", nvinfer.version, " cannot load the engine: ", messages_.last(),
                               ". Build it again, with --force."));
    }
    gpu_.driver().check(gpu_.driver().stream_create(&stream_, CU_STREAM_NON_BLOCKING));
    device_ = gpu_.name() + " (GPU 0)";
  }

  ~Engine() override {
    gpu_.driver().context_push(gpu_.context());
    contexts_.clear();
    engine_.reset();
    runtime_.reset();
    buffers_.clear();
    if (stream_ != nullptr) gpu_.driver().stream_destroy(stream_);
    CUcontext popped = nullptr;
    gpu_.driver().context_pop(&popped);
  }

  const std::string &device() const override { return device_; }
  const std::string &version() const override { return version_; }

  std::vector<Output> run(const Tensors &inputs, const std::vector<TensorSpec> &specs) const override {
    const std::lock_guard lock(mutex_);
    const OnGpu here(gpu_);
    trt::IExecutionContext &context = prepare(inputs);
    std::vector<Output> outputs;
    std::vector<pd_tensor> targets;
    for (const TensorSpec &spec : specs) {
      const auto shape = shape_of(context, spec.name.c_str());
      const pd_dtype dtype = dtype_of(engine_->getTensorDataType(spec.name.c_str()));
      if (dtype != spec.dtype) throw wrong_dtype(kRuntime, spec, dtype == 0 ? "another type" : dtype_info(dtype)->name);
      const std::size_t bytes = bytes_of(spec.name.c_str(), spec.dtype, shape);
      const std::shared_ptr<void> memory(new char[bytes], [](void *data) { delete[] static_cast<char *>(data); });
      outputs.push_back({spec.name, spec.dtype, shape, memory.get(), bytes, memory});
    }
    for (const Output &output : outputs)
      targets.push_back(output.tensor());
    finish(context, {targets.data(), targets.size()});
    return outputs;
  }

  void run_into(const Tensors &inputs, const Tensors &outputs) const override {
    const std::lock_guard lock(mutex_);
    const OnGpu here(gpu_);
    trt::IExecutionContext &context = prepare(inputs);
    for (const pd_tensor &output : outputs) {
      const auto shape = shape_of(context, output.name);
      const bool same = std::equal(shape.begin(), shape.end(), output.shape, output.shape + output.rank);
      if (!same || bytes_of(output.name, output.dtype, shape) > output.bytes) {
        throw BundleError(concat("The engine gives ", repr(output.name), " of shape ",
                                 list_text(shape.data(), shape.size()),
                                 ", which is not what the manifest says. Build it again, with --force."));
      }
    }
    finish(context, outputs);
  }

 private:
  // The context of the tightest profile, with shapes and addresses of the inputs set and their copies under way.
  trt::IExecutionContext &prepare(const Tensors &inputs) const {
    const std::size_t profile = side_car_.profile_for(inputs);
    auto &context = contexts_[profile];
    if (!context) {
      std::unique_ptr<trt::IExecutionContext> made(engine_->createExecutionContext());
      if (!made || !made->setOptimizationProfileAsync(static_cast<std::int32_t>(profile), stream_)) {
        throw Error(concat(kTitle, " cannot set up profile ", profile, " of the engine: ", messages_.last(),
                           ". Free memory of the GPU, or build an engine for smaller shapes: --shapes"));
      }
      context = std::move(made);
    }
    for (const pd_tensor &input : inputs)
      set_input(*context, input);
    return *context;
  }

  void set_input(trt::IExecutionContext &context, const pd_tensor &input) const {
    trt::Dims shape{};
    shape.nbDims = static_cast<std::int32_t>(input.rank);
    const bool fits = input.rank <= trt::Dims::MAX_DIMS;
    if (fits) std::copy(input.shape, input.shape + input.rank, shape.d);
    if (!fits || !context.setInputShape(input.name, shape)) {
      throw Error(concat(kTitle, " refuses ", input.name, " ", list_text(input.shape, input.rank), ": ",
                         messages_.last()));
    }
    // Shapes may depend on an input's values: the engine reads such a one on the host.
    if (engine_->getTensorLocation(input.name) == trt::TensorLocation::kHOST) {
      context.setInputTensorAddress(input.name, input.data);
      return;
    }
    const std::size_t bytes = checked_bytes(input);
    const CUdeviceptr place = buffer(input.name).hold(bytes);
    context.setInputTensorAddress(input.name, reinterpret_cast<const void *>(place));
    gpu_.driver().check(gpu_.driver().to_device(place, input.data, bytes, stream_));
  }

  // Runs, and copies the outputs that have a target.
  void finish(trt::IExecutionContext &context, const Tensors &targets) const {
    std::map<std::string, CUdeviceptr> places;
    for (std::int32_t index = 0; index < engine_->getNbIOTensors(); ++index) {
      const char *name = engine_->getIOTensorName(index);
      if (engine_->getTensorIOMode(name) != trt::TensorIOMode::kOUTPUT) continue;
      const std::size_t bytes = bytes_of(name, dtype_of(engine_->getTensorDataType(name)), shape_of(context, name));
      places[name] = buffer(name).hold(bytes);
      context.setTensorAddress(name, reinterpret_cast<void *>(places[name]));
    }
    if (!context.enqueueV3(stream_)) throw Error(concat(kTitle, " failed while running: ", messages_.last(), "."));
    for (const pd_tensor &target : targets) {
      const std::size_t bytes = checked_bytes(target);
      if (bytes != 0) gpu_.driver().check(gpu_.driver().to_host(target.data, places.at(target.name), bytes, stream_));
    }
    gpu_.driver().check(gpu_.driver().stream_synchronize(stream_));
  }

  std::vector<std::int64_t> shape_of(const trt::IExecutionContext &context, const char *name) const {
    const trt::Dims shape = context.getTensorShape(name);
    if (shape.nbDims < 0) throw BundleError(concat("The engine has no output ", repr(name), ". Build it again."));
    return {shape.d, shape.d + shape.nbDims};
  }

  std::size_t bytes_of(const char *name, pd_dtype dtype, const std::vector<std::int64_t> &shape) const {
    if (dtype == 0 || dtype_of(engine_->getTensorDataType(name)) != dtype) {
      throw BundleError(concat("The engine gives ", repr(name), " in another dtype than the manifest says. Export the "
                               "checkpoint again."));
    }
    std::size_t bytes = dtype_info(dtype)->bytes;
    for (const std::int64_t size : shape)
      bytes *= static_cast<std::size_t>(size);
    return bytes;
  }

  DeviceBuffer &buffer(const std::string &name) const { return buffers_.try_emplace(name, gpu_.driver()).first->second; }

  SideCar side_car_;
  Gpu gpu_;
  std::string device_, version_;
  CUstream stream_ = nullptr;
  mutable Messages messages_;
  std::unique_ptr<trt::IRuntime> runtime_;
  std::unique_ptr<trt::ICudaEngine> engine_;
  mutable std::mutex mutex_;
  mutable std::map<std::size_t, std::unique_ptr<trt::IExecutionContext>> contexts_;
  mutable std::map<std::string, DeviceBuffer> buffers_;
};

}  // namespace

std::unique_ptr<Executor> open_engine(const Bundle &bundle, const std::string &runtime, const std::string &variant,
                                      const std::string &stage, const std::string &library) {
  if (runtime != kRuntime) {
    throw MissingError(concat("Runtime ", repr(runtime), " cannot run here: this library was built with headers of ",
                              kTitle, ". Build it with those of the other."));
  }
  return std::make_unique<Engine>(bundle, engine_of(bundle, runtime, variant, stage), library);
}

}  // namespace pd
