// The C ABI: handles around the classes, and the border that no exception crosses.
#include <charconv>
#include <cstring>
#include <functional>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "error.hpp"
#include "perceiver_deploy/perceiver_deploy.h"
#include "session.hpp"
#include "text.hpp"

struct pd_options {
  pd::Options options;
};

struct pd_session {
  pd_session(const char *bundle, const pd::Options &options);

  pd::Session session;
  std::map<const pd::TensorSpec *, std::vector<const char *>> shapes;  // texts of sizes, as pd_spec points to them
};

struct pd_outputs {
  std::vector<pd::Output> outputs;
};

pd_session::pd_session(const char *bundle, const pd::Options &options) : session(bundle, options) {
  for (const auto &[name, stage] : session.manifest().stages) {
    for (const auto *specs : {&stage.inputs, &stage.outputs}) {
      for (const pd::TensorSpec &spec : *specs) {
        for (const pd::Size &size : spec.shape)
          shapes[&spec].push_back(size.text().c_str());
      }
    }
  }
}

namespace {

using pd::concat;

struct LastError {
  std::string message;
  const char *family = "";
  bool out_of_memory = false;  // the message could not be kept
};
thread_local LastError last;

pd_status remember(const char *message, const char *family, pd_status status) noexcept {
  last.family = family;
  try {
    last.message = message;
  } catch (...) {
    last.out_of_memory = true;
  }
  return status;
}

// Runs `body`, turning exceptions into a status and the thread's last error.
template <class Body>
pd_status guarded(const Body &body) noexcept {
  last.message.clear();
  last.family = "";
  last.out_of_memory = false;
  try {
    body();
    return PD_OK;
  } catch (const pd::Error &error) {
    return remember(error.what(), error.family(), error.status());
  } catch (const std::bad_alloc &) {
    last.out_of_memory = true;
    return PD_ERROR;
  } catch (const std::exception &error) {
    return remember(error.what(), "PerceiverDeployError", PD_ERROR);
  } catch (...) {
    return remember("an unknown exception", "PerceiverDeployError", PD_ERROR);
  }
}

void require(const void *pointer, const char *name) {
  if (pointer == nullptr) throw pd::UsageError(concat("The argument ", name, " is NULL; expected an object."));
}

pd::Tensors tensors(const pd_tensor *data, std::size_t count, const char *name) {
  if (count != 0) require(data, name);
  for (std::size_t index = 0; index < count; ++index) {
    if (data[index].name == nullptr || (data[index].rank != 0 && data[index].shape == nullptr)) {
      throw pd::UsageError(concat("The tensor ", index, " of ", name, " has no name or no shape; expected both."));
    }
  }
  return {data, count};
}

const std::vector<pd::TensorSpec> &specs(const pd_session *session, const char *stage, pd_side side) {
  require(session, "session");
  if (side != PD_INPUT && side != PD_OUTPUT) throw pd::UsageError("The argument side is neither input nor output.");
  const pd::Stage &found = session->session.stage(stage);
  return side == PD_INPUT ? found.inputs : found.outputs;
}

template <class Items>
void require_index(const Items &items, std::size_t index) {
  if (index >= items.size())
    throw pd::UsageError(concat("There is no index ", index, "; there are ", items.size(), "."));
}

bool flag(const std::string &name, const std::string &value) {
  if (value != "0" && value != "1") throw pd::UsageError(concat(name, " is ", pd::repr(value), "; expected 0 or 1."));
  return value == "1";
}

std::int64_t whole_number(const std::string &text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw pd::UsageError(concat("threads is ", pd::repr(text), "; expected at least 1."));
  }
  return number;
}

void set_option(pd::Options &options, const std::string &name, const std::string &value) {
  if (name == "runtime") {
    options.runtime = value;
  } else if (name == "variant") {
    options.variant = value;
  } else if (name == "precision") {
    options.precision = value;
  } else if (name == "threads") {
    options.threads = whole_number(value);
  } else if (name == "library") {
    options.library = value;
  } else if (name == "plugin") {
    options.plugin = value;
  } else if (name == "allow_nonconforming") {
    options.allow_nonconforming = flag(name, value);
  } else {
    throw pd::UsageError(
        concat("There is no option ", pd::repr(name),
               "; expected runtime, variant, precision, threads, library, plugin or allow_nonconforming."));
  }
}

template <class Handle>
void destroy(Handle **handle) {
  if (handle == nullptr) return;
  delete *handle;
  *handle = nullptr;
}

}  // namespace

int32_t pd_abi_version() {
  return PD_ABI_VERSION;
}

const char *pd_version() {
  return PD_RELEASE;
}

const char *pd_last_error() {
  return last.out_of_memory ? "Out of memory." : last.message.c_str();
}

const char *pd_last_error_family() {
  return last.out_of_memory ? "PerceiverDeployError" : last.family;
}

pd_status pd_options_new(pd_options **options) {
  return guarded([&] {
    require(options, "options");
    *options = new pd_options;
  });
}

pd_status pd_options_set(pd_options *options, const char *name, const char *value) {
  return guarded([&] {
    require(options, "options");
    require(name, "name");
    require(value, "value");
    set_option(options->options, name, value);
  });
}

void pd_options_free(pd_options **options) {
  destroy(options);
}

pd_status pd_session_open(const char *bundle, const pd_options *options, pd_session **session) {
  return guarded([&] {
    require(session, "session");
    *session = nullptr;
    require(bundle, "bundle");
    *session = new pd_session(bundle, options == nullptr ? pd::Options() : options->options);
  });
}

void pd_session_close(pd_session **session) {
  destroy(session);
}

const char *pd_session_runtime(const pd_session *session) {
  return session == nullptr ? nullptr : session->session.runtime().c_str();
}

const char *pd_session_device(const pd_session *session) {
  return session == nullptr ? nullptr : session->session.device().c_str();
}

const char *pd_session_variant(const pd_session *session) {
  return session == nullptr ? nullptr : session->session.variant().c_str();
}

const char *pd_session_manifest(const pd_session *session) {
  return session == nullptr ? nullptr : session->session.manifest().text.c_str();
}

const char *pd_session_conformance(const pd_session *session) {
  return session == nullptr ? nullptr : session->session.conformance().c_str();
}

pd_status pd_session_check(const pd_session *session) {
  return guarded([&] {
    require(session, "session");
    session->session.check();
  });
}

int pd_session_has_stage(const pd_session *session, const char *stage) {
  return guarded([&] { specs(session, stage, PD_INPUT); }) == PD_OK;
}

pd_status pd_session_count(const pd_session *session, const char *stage, pd_side side, size_t *count) {
  return guarded([&] {
    require(count, "count");
    *count = specs(session, stage, side).size();
  });
}

pd_status pd_session_spec(const pd_session *session, const char *stage, pd_side side, size_t index, pd_spec *spec) {
  return guarded([&] {
    require(spec, "spec");
    const auto &all = specs(session, stage, side);
    require_index(all, index);
    const pd::TensorSpec &found = all[index];
    const auto shape = session->shapes.find(&found);
    const bool scalar = shape == session->shapes.end();
    *spec = {found.name.c_str(), found.dtype, scalar ? nullptr : shape->second.data(), found.shape.size()};
  });
}

pd_status pd_session_axis(const pd_session *session, const char *name, pd_axis *axis) {
  return guarded([&] {
    require(session, "session");
    require(name, "name");
    require(axis, "axis");
    for (const auto &[known, found] : session->session.manifest().axes) {
      if (known != name) continue;
      *axis = {known.c_str(), found.min, found.opt, found.max.value_or(0), found.multiple_of};
      return;
    }
    throw pd::UsageError(concat("There is no axis ", pd::repr(name), "; expected ",
                                pd::names_text(session->session.manifest().axes), "."));
  });
}

size_t pd_session_label_count(const pd_session *session) {
  return session == nullptr ? 0 : session->session.manifest().labels.size();
}

const char *pd_session_label(const pd_session *session, size_t index) {
  return index < pd_session_label_count(session) ? session->session.manifest().labels[index].c_str() : nullptr;
}

pd_status pd_session_run(const pd_session *session, const char *stage, const pd_tensor *inputs, size_t input_count,
                         pd_outputs **outputs) {
  return guarded([&] {
    require(session, "session");
    require(outputs, "outputs");
    *outputs = nullptr;
    *outputs = new pd_outputs{session->session.run(stage, tensors(inputs, input_count, "inputs"))};
  });
}

pd_status pd_session_run_into(const pd_session *session, const char *stage, const pd_tensor *inputs, size_t input_count,
                              const pd_tensor *outputs, size_t output_count) {
  return guarded([&] {
    require(session, "session");
    session->session.run_into(stage, tensors(inputs, input_count, "inputs"), tensors(outputs, output_count, "outputs"));
  });
}

pd_status pd_session_output_shape(const pd_session *session, const char *stage, const pd_tensor *inputs,
                                  size_t input_count, size_t index, int64_t *shape, size_t rank) {
  return guarded([&] {
    const auto &outputs = specs(session, stage, PD_OUTPUT);
    require_index(outputs, index);
    const auto sizes = session->session.output_shape(stage, tensors(inputs, input_count, "inputs"), outputs[index]);
    if (sizes.size() != rank) {
      throw pd::UsageError(concat("rank is ", rank, "; expected ", sizes.size(), ", as the output has."));
    }
    if (rank != 0) require(shape, "shape");
    std::copy(sizes.begin(), sizes.end(), shape);
  });
}

size_t pd_outputs_count(const pd_outputs *outputs) {
  return outputs == nullptr ? 0 : outputs->outputs.size();
}

pd_status pd_outputs_get(const pd_outputs *outputs, size_t index, pd_tensor *tensor) {
  return guarded([&] {
    require(outputs, "outputs");
    require(tensor, "tensor");
    require_index(outputs->outputs, index);
    *tensor = outputs->outputs[index].tensor();
  });
}

void pd_outputs_free(pd_outputs **outputs) {
  destroy(outputs);
}
