// measure overhead|start|throughput BUNDLE: what benchmarks/embed.py asks of the C++ library, as JSON. `overhead` takes
// any bundle, the others one of image classification. PERCEIVER_DEPLOY_ONNXRUNTIME names onnxruntime's library.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <numeric>
#include <perceiver_deploy/perceiver_deploy.hpp>
#include <thread>

namespace pd = perceiver_deploy;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::size_t kMost = 4;  // inputs or outputs
constexpr int kPairs = 8;
constexpr double kPairSeconds = 0.25;
constexpr double kSeconds = 3;

double microseconds(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Of this program alone: what getrusage gives counts what forked it too.
double peak_megabytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) * 1024 / 1e6;
  }
  throw std::runtime_error("/proc/self/status has no VmHWM");
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// onnxruntime's C API and nothing else: tensors over the caller's memory, and a run.
class Bare {
 public:
  explicit Bare(const std::string &graph) {
    void *library = dlopen(std::getenv("PERCEIVER_DEPLOY_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw std::runtime_error(dlerror());
    const auto base = reinterpret_cast<const OrtApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
    api_ = base()->GetApi(ORT_API_VERSION);
    OrtEnv *environment = nullptr;
    OrtSessionOptions *options = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "measure", &environment));
    check(api_->CreateSessionOptions(&options));
    check(api_->SetIntraOpNumThreads(options, 1));
    check(api_->CreateSession(environment, graph.c_str(), options, &session_));
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    api_->ReleaseSessionOptions(options);
    api_->ReleaseEnv(environment);
  }
  ~Bare() {
    api_->ReleaseMemoryInfo(memory_);
    api_->ReleaseSession(session_);
  }
  Bare(const Bare &) = delete;
  Bare &operator=(const Bare &) = delete;

  void run(const pd::Tensors &inputs, const pd::Tensors &outputs) {
    Values given = wrap(inputs), wanted = wrap(outputs);
    check(api_->Run(session_, nullptr, given.names, given.values, inputs.size(), wanted.names, outputs.size(),
                    wanted.values));
    release(given, inputs.size());
    release(wanted, outputs.size());
  }

 private:
  struct Values {
    const char *names[kMost];
    OrtValue *values[kMost];
  };

  Values wrap(const pd::Tensors &tensors) const {
    Values made;
    for (std::size_t index = 0; index < tensors.size(); ++index) {
      const pd_tensor tensor = tensors[index].view();
      const auto dtype =
          tensor.dtype == PD_INT64 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      made.names[index] = tensor.name;
      check(api_->CreateTensorWithDataAsOrtValue(memory_, tensor.data, tensor.bytes, tensor.shape, tensor.rank, dtype,
                                                 &made.values[index]));
    }
    return made;
  }

  void release(const Values &made, std::size_t count) const {
    for (std::size_t index = 0; index < count; ++index)
      api_->ReleaseValue(made.values[index]);
  }

  void check(OrtStatus *status) const {
    if (status != nullptr) throw std::runtime_error(api_->GetErrorMessage(status));
  }

  const OrtApi *api_ = nullptr;
  OrtSession *session_ = nullptr;
  OrtMemoryInfo *memory_ = nullptr;
};

// Tensors and what they are over.
struct Arrays {
  std::deque<std::vector<float>> floats;
  std::deque<std::vector<std::int64_t>> integers;
  pd::Tensors tensors;

  void add(const pd::Spec &spec, const pd::Shape &shape) {
    const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    const auto size = static_cast<std::size_t>(count);
    if (spec.dtype == PD_INT64) {
      tensors.emplace_back(spec.name, integers.emplace_back(size, 1), shape);
    } else {
      tensors.emplace_back(spec.name, floats.emplace_back(size, 0.5f), shape);
    }
  }
};

// A batch of one, with all other axes at their optimum.
Arrays inputs_of(const pd::Session &session) {
  Arrays arrays;
  for (const pd::Spec &spec : session.inputs()) {
    pd::Shape shape;
    for (const std::string &size : spec.shape) {
      const bool number = size.find_first_not_of("0123456789") == std::string::npos;
      shape.push_back(size == "batch" ? 1 : number ? std::stoll(size) : session.axis(size).optimum);
    }
    arrays.add(spec, shape);
  }
  return arrays;
}

// Two sessions of one model differ by microseconds, by where their memory lies and which was opened first. So there are
// several pairs, and in each second one ours is opened first. Within a pair the two take turns, and so does who begins.
void overhead(const std::string &bundle, const pd::Options &options) {
  std::vector<double> our_times, bare_times;
  const auto time = [](std::vector<double> &times, const auto &run) {
    const auto start = Clock::now();
    run();
    times.push_back(microseconds(start));
  };
  for (int pair = 0; pair < kPairs; ++pair) {
    std::optional<pd::Session> session;
    if (pair % 2) session.emplace(bundle, options);
    Bare bare(bundle + "/onnx/fp32.onnx");
    if (!session) session.emplace(bundle, options);
    const Arrays inputs = inputs_of(*session);
    Arrays ours, theirs;
    for (const pd::Spec &spec : session->outputs()) {
      for (Arrays *arrays : {&ours, &theirs})
        arrays->add(spec, session->output_shape(inputs.tensors, spec.name));
    }
    const auto run_ours = [&] { session->run_into(inputs.tensors, ours.tensors); };
    const auto start = Clock::now();
    for (int round = 0; microseconds(start) < kPairSeconds * 1e6; ++round) {
      if (round % 2) time(our_times, run_ours);
      time(bare_times, [&] { bare.run(inputs.tensors, theirs.tensors); });
      if (round % 2 == 0) time(our_times, run_ours);
    }
    if (ours.floats != theirs.floats) throw std::runtime_error("the outputs differ");
  }
  std::printf("{\"ours_us\": %.3f, \"bare_us\": %.3f, \"rounds\": %zu}\n", median(our_times), median(bare_times),
              our_times.size());
}

void throughput(const pd::Session &session) {
  std::vector<long> runs(2, 0);
  std::vector<std::thread> threads;
  const auto start = Clock::now();
  for (long &count : runs) {
    threads.emplace_back([&] {
      const std::vector<float> pixels(192, 0.5f);
      while (microseconds(start) < kSeconds * 1e6) {
        session.run({{"pixel_values", pixels, {1, 3, 8, 8}}});
        ++count;
      }
    });
  }
  for (std::thread &thread : threads)
    thread.join();
  std::printf("{\"runs_per_second\": %.1f}\n", static_cast<double>(runs[0] + runs[1]) / (microseconds(start) / 1e6));
}

}  // namespace

int main(int count, char **arguments) {
  const auto start = Clock::now();
  if (count != 3) return PD_USAGE;
  try {
    pd::Options options;
    options.threads = 1;
    if (std::strcmp(arguments[1], "overhead") == 0) {
      overhead(arguments[2], options);
      return PD_OK;
    }
    const pd::Session session(arguments[2], options);
    const double opened = microseconds(start);
    const std::vector<float> pixels(192, 0.5f);
    session.run({{"pixel_values", pixels, {1, 3, 8, 8}}});
    const double first = microseconds(start);
    if (std::strcmp(arguments[1], "throughput") == 0) {
      throughput(session);
    } else {
      std::printf("{\"open_ms\": %.3f, \"first_output_ms\": %.3f, \"peak_mb\": %.1f}\n", opened / 1e3, first / 1e3,
                  peak_megabytes());
    }
    return PD_OK;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return PD_ERROR;
  }
}
