// measure overhead|start|throughput BUNDLE: what benchmarks/embed.py asks of the C++ library, as JSON. The bundle is
// one of image classification with plain inputs. PERCEIVER_DEPLOY_ONNXRUNTIME names onnxruntime's library.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <perceiver_deploy/perceiver_deploy.hpp>
#include <thread>

namespace pd = perceiver_deploy;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::int64_t kShape[4] = {1, 3, 8, 8};
constexpr int kPairs = 16, kRounds = 500;
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

  void run(const std::vector<float> &pixels, std::vector<float> &logits) {
    const std::int64_t shape[2] = {1, static_cast<std::int64_t>(logits.size())};
    OrtValue *input = wrap(const_cast<float *>(pixels.data()), pixels.size(), kShape, 4);
    OrtValue *output = wrap(logits.data(), logits.size(), shape, 2);
    const char *const input_name = "pixel_values", *const output_name = "logits";
    check(api_->Run(session_, nullptr, &input_name, &input, 1, &output_name, 1, &output));
    api_->ReleaseValue(input);
    api_->ReleaseValue(output);
  }

 private:
  OrtValue *wrap(float *data, std::size_t count, const std::int64_t *shape, std::size_t rank) {
    OrtValue *value = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_, data, count * sizeof(float), shape, rank,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return value;
  }

  void check(OrtStatus *status) const {
    if (status != nullptr) throw std::runtime_error(api_->GetErrorMessage(status));
  }

  const OrtApi *api_ = nullptr;
  OrtSession *session_ = nullptr;
  OrtMemoryInfo *memory_ = nullptr;
};

// Two sessions of one model differ by microseconds, by where their memory lies and which was opened first. So there are
// several pairs, and in each second one ours is opened first. Within a pair the two take turns, and so does who begins.
void overhead(const std::string &bundle, const pd::Options &options, std::size_t classes) {
  const std::vector<float> pixels(192, 0.5f);
  std::vector<float> ours(classes), theirs(classes);
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
    const auto run_ours = [&] {
      session->run_into({{"pixel_values", pixels, {1, 3, 8, 8}}},
                        {{"logits", ours, {1, static_cast<std::int64_t>(classes)}}});
    };
    for (int round = 0; round < kRounds; ++round) {
      if (round % 2) time(our_times, run_ours);
      time(bare_times, [&] { bare.run(pixels, theirs); });
      if (round % 2 == 0) time(our_times, run_ours);
    }
  }
  if (ours != theirs) throw std::runtime_error("the outputs differ");
  std::printf("{\"ours_us\": %.3f, \"bare_us\": %.3f, \"rounds\": %d}\n", median(our_times), median(bare_times),
              kPairs * kRounds);
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
    const pd::Session session(arguments[2], options);
    const double opened = microseconds(start);
    const std::vector<float> pixels(192, 0.5f);
    const std::size_t classes = session.run({{"pixel_values", pixels, {1, 3, 8, 8}}})["logits"].values<float>().size();
    const double first = microseconds(start);
    if (std::strcmp(arguments[1], "overhead") == 0) {
      overhead(arguments[2], options, classes);
    } else if (std::strcmp(arguments[1], "throughput") == 0) {
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
