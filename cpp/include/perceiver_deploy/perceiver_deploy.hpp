// The C++17 API of perceiver-deploy: classes that own the handles of the C ABI. Header-only, so that the library and
// the program may come from different compilers.
//
//   perceiver_deploy::Options options;
//   options.threads = 2;
//   const perceiver_deploy::Session session("digits.bundle", options);
//   const auto outputs = session.run({{"pixel_values", pixels, {1, 3, 8, 8}}});
//   for (const float logit : outputs["logits"].values<float>()) ...
//
// Everything that fails throws Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "perceiver_deploy/perceiver_deploy.h"

namespace perceiver_deploy {

// What went wrong, in one paragraph. `status` is the exit code that the command line has for it, `family` the name of
// Python's class ("InputError").
class Error : public std::runtime_error {
 public:
  Error(pd_status status, std::string family, const std::string &message)
      : std::runtime_error(message), status_(status), family_(std::move(family)) {}

  pd_status status() const noexcept { return status_; }
  const std::string &family() const noexcept { return family_; }

 private:
  pd_status status_;
  std::string family_;
};

inline void check(pd_status status) {
  if (status != PD_OK) throw Error(status, pd_last_error_family(), pd_last_error());
}

// Bits of an IEEE half.
struct Float16 {
  std::uint16_t bits;
};

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> : std::integral_constant<pd_dtype, PD_FLOAT32> {};
template <>
struct DtypeOf<double> : std::integral_constant<pd_dtype, PD_FLOAT64> {};
template <>
struct DtypeOf<Float16> : std::integral_constant<pd_dtype, PD_FLOAT16> {};
template <>
struct DtypeOf<std::int64_t> : std::integral_constant<pd_dtype, PD_INT64> {};
template <>
struct DtypeOf<std::int32_t> : std::integral_constant<pd_dtype, PD_INT32> {};
template <>
struct DtypeOf<std::int16_t> : std::integral_constant<pd_dtype, PD_INT16> {};
template <>
struct DtypeOf<std::uint8_t> : std::integral_constant<pd_dtype, PD_UINT8> {};

using Shape = std::vector<std::int64_t>;

// Elements in a row that somebody else owns.
template <class T>
class Span {
 public:
  Span(T *data, std::size_t size) : data_(data), size_(size) {}
  T *data() const { return data_; }
  std::size_t size() const { return size_; }
  T *begin() const { return data_; }
  T *end() const { return data_ + size_; }
  T &operator[](std::size_t index) const { return data_[index]; }

 private:
  T *data_;
  std::size_t size_;
};

// A named array that somebody else owns: an input that is read in place, memory for an output, or an output.
class TensorView {
 public:
  template <class T>
  TensorView(std::string name, T *data, std::size_t count, Shape shape)
      : name_(std::move(name)),
        dtype_(DtypeOf<std::remove_const_t<T>>::value),
        shape_(std::move(shape)),
        data_(const_cast<std::remove_const_t<T> *>(data)),
        bytes_(count * sizeof(T)) {}

  template <class T>
  TensorView(std::string name, const std::vector<T> &values, Shape shape)
      : TensorView(std::move(name), values.data(), values.size(), std::move(shape)) {}

  template <class T>
  TensorView(std::string name, std::vector<T> &values, Shape shape)
      : TensorView(std::move(name), values.data(), values.size(), std::move(shape)) {}

  explicit TensorView(const pd_tensor &tensor)
      : name_(tensor.name),
        dtype_(tensor.dtype),
        shape_(tensor.shape, tensor.shape + tensor.rank),
        data_(tensor.data),
        bytes_(tensor.bytes) {}

  const std::string &name() const { return name_; }
  pd_dtype dtype() const { return dtype_; }
  const Shape &shape() const { return shape_; }

  // Throws where T is not what the elements are.
  template <class T>
  Span<const T> values() const {
    if (DtypeOf<T>::value != dtype_) {
      throw Error(PD_USAGE, "UsageError", "'" + name_ + "' was asked for as another type than it has. See dtype().");
    }
    return {static_cast<const T *>(data_), bytes_ / sizeof(T)};
  }

  // As the C ABI takes it; valid as long as this object stays where it is.
  pd_tensor view() const { return {name_.c_str(), dtype_, shape_.data(), shape_.size(), data_, bytes_}; }

 private:
  std::string name_;
  pd_dtype dtype_;
  Shape shape_;
  void *data_;
  std::size_t bytes_;
};

using Tensors = std::vector<TensorView>;

// Outputs of a run, which own their memory. They may outlive the session.
class Outputs {
 public:
  explicit Outputs(pd_outputs *handle) : handle_(handle) {
    for (std::size_t index = 0; index < pd_outputs_count(handle); ++index) {
      pd_tensor tensor;
      check(pd_outputs_get(handle, index, &tensor));
      tensors_.emplace_back(tensor);
    }
  }
  ~Outputs() { pd_outputs_free(&handle_); }
  Outputs(Outputs &&other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), tensors_(std::move(other.tensors_)) {}
  Outputs &operator=(Outputs &&other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(tensors_, other.tensors_);
    return *this;
  }

  const Tensors &tensors() const { return tensors_; }
  const TensorView &operator[](const std::string &name) const {
    for (const TensorView &tensor : tensors_) {
      if (tensor.name() == name) return tensor;
    }
    throw Error(PD_USAGE, "UsageError", "There is no output '" + name + "'. Session::outputs() has their names.");
  }

 private:
  pd_outputs *handle_;
  Tensors tensors_;
};

// How a bundle is opened; what is not set is left to the library. See pd_options_set for each.
struct Options {
  std::optional<std::string> variant = {};
  std::optional<std::string> precision = {};
  std::optional<std::string> runtime = {};
  std::optional<int> threads = {};
  std::optional<std::string> library = {};
  std::optional<std::string> plugin = {};
  bool allow_nonconforming = false;
};

// What the model says of an input or output; sizes of its shape are numbers, axes or expressions, as text.
struct Spec {
  std::string name;
  pd_dtype dtype;
  std::vector<std::string> shape;
};

// A bundle that runs. Any number of threads may use it at once, but for close().
class Session {
 public:
  explicit Session(const std::string &bundle, const Options &options = {}) {
    struct Given {
      pd_options *handle = nullptr;
      ~Given() { pd_options_free(&handle); }
    } given;
    check(pd_options_new(&given.handle));
    const auto set = [&](const char *name, const std::optional<std::string> &value) {
      if (value) check(pd_options_set(given.handle, name, value->c_str()));
    };
    set("variant", options.variant);
    set("precision", options.precision);
    set("runtime", options.runtime);
    set("library", options.library);
    set("plugin", options.plugin);
    if (options.allow_nonconforming) set("allow_nonconforming", "1");
    if (options.threads) set("threads", std::to_string(*options.threads));
    check(pd_session_open(bundle.c_str(), given.handle, &handle_));
    runtime_ = pd_session_runtime(handle_);
  }
  ~Session() { close(); }
  Session(Session &&other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), runtime_(std::move(other.runtime_)) {}
  Session &operator=(Session &&other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(runtime_, other.runtime_);
    return *this;
  }

  // Frees the engine. Closing twice is allowed; running afterwards throws.
  void close() noexcept { pd_session_close(&handle_); }

  // Outputs by name for inputs by name, of the whole model.
  Outputs run(const Tensors &inputs) const { return run_stage(nullptr, inputs); }
  // Latents of the data, which can be decoded any number of times.
  Outputs encode(const Tensors &inputs) const { return run_stage("encoder", inputs); }
  // Outputs for the latents and what the decoder takes beside them.
  Outputs decode(const Tensors &inputs) const { return run_stage("decoder", inputs); }

  // Runs into memory of the caller. `stage` is NULL for the whole model, as below.
  void run_into(const Tensors &inputs, const Tensors &outputs, const char *stage = nullptr) const {
    const auto given = views(inputs), wanted = views(outputs);
    check(pd_session_run_into(handle(), stage, given.data(), given.size(), wanted.data(), wanted.size()));
  }

  // The shape that an output has for these inputs.
  Shape output_shape(const Tensors &inputs, const std::string &output, const char *stage = nullptr) const {
    const auto given = views(inputs);
    const std::vector<Spec> all = outputs(stage);
    for (std::size_t index = 0; index < all.size(); ++index) {
      if (all[index].name != output) continue;
      Shape shape(all[index].shape.size());
      check(pd_session_output_shape(handle(), stage, given.data(), given.size(), index, shape.data(), shape.size()));
      return shape;
    }
    throw Error(PD_USAGE, "UsageError", "There is no output '" + output + "'. Session::outputs() has their names.");
  }

  std::vector<Spec> inputs(const char *stage = nullptr) const { return specs(stage, PD_INPUT); }
  std::vector<Spec> outputs(const char *stage = nullptr) const { return specs(stage, PD_OUTPUT); }
  bool has_stage(const char *stage) const { return pd_session_has_stage(handle(), stage) != 0; }

  pd_axis axis(const std::string &name) const {
    pd_axis found;
    check(pd_session_axis(handle(), name.c_str(), &found));
    return found;
  }

  // Names of the classes; empty where the model has none.
  std::vector<std::string> labels() const {
    std::vector<std::string> all;
    for (std::size_t index = 0; index < pd_session_label_count(handle()); ++index) {
      all.emplace_back(pd_session_label(handle(), index));
    }
    return all;
  }

  const std::string &runtime() const { return runtime_; }
  std::string device() const { return pd_session_device(handle()); }
  std::string variant() const { return pd_session_variant(handle()); }
  std::string manifest() const { return pd_session_manifest(handle()); }

  // "conforms", "unknown: REASON" or "does not conform: REASON"; see pd_session_conformance.
  std::string conformance() const { return pd_session_conformance(handle()); }
  // Runs the golden sample anew. Throws where the graphs do not give their own numbers here.
  void check_conformance() const { check(pd_session_check(handle())); }

 private:
  pd_session *handle() const {
    if (handle_ != nullptr) return handle_;
    throw Error(PD_ERROR, "PerceiverDeployError",
                "This " + runtime_ + " session is closed. Load the bundle again to run it.");
  }

  static std::vector<pd_tensor> views(const Tensors &tensors) {
    std::vector<pd_tensor> all;
    all.reserve(tensors.size());
    for (const TensorView &tensor : tensors)
      all.push_back(tensor.view());
    return all;
  }

  Outputs run_stage(const char *stage, const Tensors &inputs) const {
    const auto given = views(inputs);
    pd_outputs *outputs = nullptr;
    check(pd_session_run(handle(), stage, given.data(), given.size(), &outputs));
    return Outputs(outputs);
  }

  std::vector<Spec> specs(const char *stage, pd_side side) const {
    std::size_t count = 0;
    check(pd_session_count(handle(), stage, side, &count));
    std::vector<Spec> all;
    for (std::size_t index = 0; index < count; ++index) {
      pd_spec spec;
      check(pd_session_spec(handle(), stage, side, index, &spec));
      all.push_back({spec.name, spec.dtype, {spec.shape, spec.shape + spec.rank}});
    }
    return all;
  }

  pd_session *handle_ = nullptr;
  std::string runtime_;
};

}  // namespace perceiver_deploy
