// The NVIDIA GPU of this machine through the driver's own library, libcuda, loaded at run time. TensorRT takes its
// streams and pointers as they are, so that CUDA's runtime library is not needed.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <optional>
#include <string>

namespace pd {

// Functions of libcuda.
struct Driver {
  // Loads it and finds a device. Throws MissingError, which says what of driver and GPU is not here.
  static const Driver &open(const std::string &runtime);

  // Throws Error where a call failed.
  void check(CUresult status) const;

  decltype(&::cuInit) init;
  decltype(&::cuGetErrorString) error_string;
  decltype(&::cuDeviceGetCount) device_count;
  decltype(&::cuDeviceGet) device_get;
  decltype(&::cuDeviceGetName) device_name;
  decltype(&::cuDeviceGetAttribute) device_attribute;
  decltype(&::cuDevicePrimaryCtxRetain) context_retain;
  decltype(&::cuDevicePrimaryCtxRelease_v2) context_release;
  decltype(&::cuCtxPushCurrent_v2) context_push;
  decltype(&::cuCtxPopCurrent_v2) context_pop;
  decltype(&::cuStreamCreate) stream_create;
  decltype(&::cuStreamDestroy_v2) stream_destroy;
  decltype(&::cuStreamSynchronize) stream_synchronize;
  decltype(&::cuMemAlloc_v2) allocate;
  decltype(&::cuMemFree_v2) free;
  decltype(&::cuMemcpyHtoDAsync_v2) to_device;
  decltype(&::cuMemcpyDtoHAsync_v2) to_host;

 private:
  explicit Driver(const std::string &runtime);
};

// The first GPU that the driver shows (CUDA_VISIBLE_DEVICES), with the context that everything in this process shares.
class Gpu {
 public:
  explicit Gpu(const Driver &driver);
  ~Gpu();
  Gpu(const Gpu &) = delete;
  Gpu &operator=(const Gpu &) = delete;

  const Driver &driver() const { return driver_; }
  CUcontext context() const { return context_; }
  const std::string &name() const { return name_; }
  std::string compute_capability() const;  // "8.9"

 private:
  int attribute(CUdevice_attribute which) const;

  const Driver &driver_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  std::string name_;
};

// Makes the GPU the calling thread's for a while.
class OnGpu {
 public:
  explicit OnGpu(const Gpu &gpu);
  ~OnGpu();
  OnGpu(const OnGpu &) = delete;
  OnGpu &operator=(const OnGpu &) = delete;

 private:
  const Driver &driver_;
};

// Memory of the current GPU that grows when more is asked for.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(const Driver &driver) : driver_(&driver) {}
  ~DeviceBuffer() { release(); }
  DeviceBuffer(DeviceBuffer &&other) noexcept;
  DeviceBuffer &operator=(DeviceBuffer &&) = delete;

  // At least so many bytes; what was in them is lost where they grow.
  CUdeviceptr hold(std::size_t bytes);

 private:
  void release();

  const Driver *driver_;
  CUdeviceptr pointer_ = 0;
  std::size_t bytes_ = 0;
};

// Version of NVIDIA's kernel driver, where it can be known.
std::optional<std::string> driver_version();

}  // namespace pd
