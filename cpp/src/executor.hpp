// What runs one stage of a variant: a graph in onnxruntime (ort.hpp) or an engine of TensorRT (engine.hpp).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "inputs.hpp"
#include "manifest.hpp"

namespace pd {

// One output. `memory` keeps what `data` points to.
struct Output {
  std::string name;
  pd_dtype dtype;
  std::vector<std::int64_t> shape;
  void *data;
  std::size_t bytes;
  std::shared_ptr<void> memory;

  pd_tensor tensor() const { return {name.c_str(), dtype, shape.data(), shape.size(), data, bytes}; }
};

// Any number of threads may run it at once.
class Executor {
 public:
  virtual ~Executor() = default;

  // What it runs on: "cpu", or a GPU.
  virtual const std::string &device() const = 0;

  // Version of the library that runs it.
  virtual const std::string &version() const = 0;

  // Runs checked inputs for these outputs, in this order. Throws Error, and ParityError where one has another dtype.
  virtual std::vector<Output> run(const Tensors &inputs, const std::vector<TensorSpec> &specs) const = 0;

  // The same into memory of the caller, which was checked. Throws Error too where it is not what the outputs need.
  virtual void run_into(const Tensors &inputs, const Tensors &outputs) const = 0;
};

}  // namespace pd
