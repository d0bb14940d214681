#include "gpu.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "error.hpp"
#include "files.hpp"
#include "text.hpp"

namespace pd {
namespace {

constexpr const char *kLibrary = "libcuda.so.1";

template <class Function>
void load(void *handle, const char *name, Function &function) {
  function = reinterpret_cast<Function>(::dlsym(handle, name));
  if (function == nullptr) throw MissingError(concat(kLibrary, " has no ", name, ". Install a newer NVIDIA driver."));
}

MissingError missing(const std::string &runtime, const std::string &piece) {
  return MissingError(concat("Runtime ", repr(runtime), " cannot run here: ", piece, "."));
}

}  // namespace

const Driver &Driver::open(const std::string &runtime) {
  static std::mutex &mutex = *new std::mutex;  // neither is freed: contexts may be released at exit
  static const Driver *driver = nullptr;
  const std::lock_guard lock(mutex);
  if (driver == nullptr) driver = new Driver(runtime);
  return *driver;
}

Driver::Driver(const std::string &runtime) {
  void *handle = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw missing(runtime, concat("there is no NVIDIA driver (", kLibrary, "): install NVIDIA's driver for this GPU"));
  }
  load(handle, "cuInit", init);
  load(handle, "cuGetErrorString", error_string);
  load(handle, "cuDeviceGetCount", device_count);
  load(handle, "cuDeviceGet", device_get);
  load(handle, "cuDeviceGetName", device_name);
  load(handle, "cuDeviceGetAttribute", device_attribute);
  load(handle, "cuDevicePrimaryCtxRetain", context_retain);
  load(handle, "cuDevicePrimaryCtxRelease_v2", context_release);
  load(handle, "cuCtxPushCurrent_v2", context_push);
  load(handle, "cuCtxPopCurrent_v2", context_pop);
  load(handle, "cuStreamCreate", stream_create);
  load(handle, "cuStreamDestroy_v2", stream_destroy);
  load(handle, "cuStreamSynchronize", stream_synchronize);
  load(handle, "cuMemAlloc_v2", allocate);
  load(handle, "cuMemFree_v2", free);
  load(handle, "cuMemcpyHtoDAsync_v2", to_device);
  load(handle, "cuMemcpyDtoHAsync_v2", to_host);
  if (const CUresult status = init(0); status != CUDA_SUCCESS) {
    const char *words = nullptr;
    error_string(status, &words);
    throw missing(runtime, concat("the NVIDIA driver finds no GPU (cuInit says ",
                                  words ? words : concat("error ", static_cast<int>(status)), ")"));
  }
  int count = 0;
  check(device_count(&count));
  if (count == 0) throw missing(runtime, "the NVIDIA driver sees no GPU: see CUDA_VISIBLE_DEVICES");
}

void Driver::check(CUresult status) const {
  if (status == CUDA_SUCCESS) return;
  const char *words = nullptr;
  error_string(status, &words);
  throw Error(concat("CUDA failed: ", words ? words : concat("error ", static_cast<int>(status)), "."));
}

Gpu::Gpu(const Driver &driver) : driver_(driver), name_(256, '\0') {
  driver_.check(driver_.device_get(&device_, 0));
  driver_.check(driver_.device_name(name_.data(), static_cast<int>(name_.size()), device_));
  name_.resize(name_.find('\0'));
  driver_.check(driver_.context_retain(&context_, device_));
}

Gpu::~Gpu() {
  driver_.context_release(device_);
}

int Gpu::attribute(CUdevice_attribute which) const {
  int value = 0;
  driver_.check(driver_.device_attribute(&value, which, device_));
  return value;
}

std::string Gpu::compute_capability() const {
  return concat(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR), ".",
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
}

OnGpu::OnGpu(const Gpu &gpu) : driver_(gpu.driver()) {
  driver_.check(driver_.context_push(gpu.context()));
}

OnGpu::~OnGpu() {
  CUcontext popped = nullptr;
  driver_.context_pop(&popped);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer &&other) noexcept
    : driver_(other.driver_), pointer_(std::exchange(other.pointer_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

CUdeviceptr DeviceBuffer::hold(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 1);
  if (bytes <= bytes_) return pointer_;
  release();
  driver_->check(driver_->allocate(&pointer_, bytes));
  bytes_ = bytes;
  return pointer_;
}

void DeviceBuffer::release() {
  if (pointer_ != 0) driver_->free(pointer_);
  pointer_ = 0;
  bytes_ = 0;
}

std::optional<std::string> driver_version() {
  try {
    std::string text = read_file("/sys/module/nvidia/version");
    text.erase(text.find_last_not_of(" \n") + 1);
    return text;
  } catch (const FileError &) {
    return std::nullopt;
  }
}

}  // namespace pd
