#include "side_car.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "error.hpp"
#include "schema.hpp"
#include "sha256.hpp"

namespace {

namespace fs = std::filesystem;

const pd::Machine kL4 = {"NVIDIA L4", "8.9", "1.7.1.116", "Linux", "x86_64", "580.65.06"};

pd::SideCar side_car() {
  return {"tensorrt-rtx",
          "int8",
          "full",
          "1.7.1.116",
          {"8.6", "8.9"},
          "Linux",
          "x86_64",
          std::nullopt,
          false,
          false,
          false,
          {{{"length", {16, 32, 48}}}},
          {{{"input_ids", {{1, 16}, {2, 32}, {4, 48}}}}}};
}

std::string refusal(const pd::SideCar &built, const pd::Machine &machine) {
  try {
    pd::require_loadable(built, machine, "text.bundle", "int8-rtx");
    return "";
  } catch (const pd::BundleError &error) {
    return error.what();
  }
}

std::size_t profile_of(const pd::SideCar &built, std::vector<std::int64_t> shape) {
  const pd_tensor input = {"input_ids", PD_INT64, shape.data(), shape.size(), nullptr, 0};
  return built.profile_for({&input, 1});
}

// A bundle with one engine and the side-car of that text.
class EngineBundle {
 public:
  explicit EngineBundle(const std::string &content) {
    path_ = fs::path(testing::TempDir()) / "side_car" / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(path_);
    fs::create_directories(path_ / "engines");
    std::ofstream(path_ / "engines/int8-rtx.json") << content;
    pd::Sha256 hash;
    hash.update(content.data(), content.size());
    pd::Json document = pd::Json::parse(R"({
      "schema_version": 1, "task": "masked_lm", "axes": {"length": {"opt": 32}},
      "stages": {"full": {"inputs": [{"name": "input_ids", "dtype": "int64", "shape": [1, "length"]}], "outputs": []}},
      "variants": {"int8": {"precision": "int8", "for": ["tensorrt-rtx"], "files": {"full": "onnx/int8.onnx"}}},
      "engines": {"int8-rtx": {"variant": "int8", "stage": "full", "file": "engines/int8-rtx.engine"}}})");
    const std::string nothing(64, '0');
    document["files"] = {{"onnx/int8.onnx", {{"sha256", nothing}, {"bytes", 0}}},
                         {"engines/int8-rtx.engine", {{"sha256", nothing}, {"bytes", 0}}},
                         {"engines/int8-rtx.json", {{"sha256", hash.finish()}, {"bytes", content.size()}}}};
    std::ofstream(path_ / "bundle.json") << document.dump();
  }

  pd::Bundle open() const { return pd::Bundle(path_.string()); }

 private:
  fs::path path_;
};

constexpr const char *kContent = R"({
  "engine": "tensorrt-rtx", "variant": "int8", "stage": "full", "precision": "int8", "seconds": 3.5,
  "compute_capabilities": ["8.6", "8.9"], "os": {"system": "Linux", "machine": "x86_64"}, "driver": null,
  "tensorrt_version": "1.7.1.116", "weights_stripped": false, "hardware_compatible": false,
  "version_compatible": false, "axes": [{"length": {"min": 16, "opt": 32, "max": 48}}],
  "shape_profiles": [{"input_ids": {"min": [1, 16], "opt": [2, 32], "max": [4, 48]}}]})";

}  // namespace

TEST(SideCar, is_read_and_found_by_what_it_is_of) {
  const pd::Bundle bundle = EngineBundle(kContent).open();
  EXPECT_EQ(pd::engine_of(bundle, "tensorrt-rtx", "int8", "full"), "int8-rtx");
  const pd::SideCar read = pd::read_side_car(bundle, "int8-rtx");
  EXPECT_EQ(refusal(read, kL4), "");
  EXPECT_EQ(profile_of(read, {4, 16}), 0u);
  try {
    pd::engine_of(bundle, "tensorrt", "int8", "full");
    FAIL();
  } catch (const pd::BundleError &error) {
    EXPECT_EQ(std::string(error.what()),
              bundle.path() + " has no tensorrt engine of variant 'int8', stage 'full'. Build one with: " +
                  "perceiver-deploy build " + bundle.path() + " --engine tensorrt --variant int8");
  }
}

TEST(SideCar, is_refused_where_it_lacks_a_fact) {
  for (const char *content : {"{", "[]", "{\"engine\": 3}", "{\"engine\": \"tensorrt\"}"}) {
    const pd::Bundle bundle = EngineBundle(content).open();
    try {
      pd::read_side_car(bundle, "int8-rtx");
      FAIL() << content;
    } catch (const pd::BundleError &error) {
      EXPECT_NE(std::string(error.what()).find("is not the side-car of an engine ("), std::string::npos);
    }
  }
}

TEST(Engine, of_another_version_is_refused_with_the_command_that_builds_it_again) {
  pd::Machine machine = kL4;
  machine.tensorrt_version = "1.8.0.1";
  EXPECT_EQ(refusal(side_car(), machine),
            "Engine 'int8-rtx' of text.bundle cannot run here: it was built by TensorRT-RTX 1.7.1.116, and 1.8.0.1 is "
            "installed. Build it again with: perceiver-deploy build text.bundle --engine tensorrt-rtx --variant int8 "
            "--compute-capability 8.9 --shapes length=16:32:48 --name int8-rtx --force");
}

TEST(Engine, for_another_gpu_system_or_newer_driver_is_refused_with_all_that_differs) {
  pd::SideCar built = side_car();
  built.driver = "580.65.06";
  const pd::Machine other = {"NVIDIA H100", "9.0", "1.7.1.116", "Windows", "AMD64", "575.1"};
  const std::string said = refusal(built, other);
  EXPECT_NE(said.find("it is for compute capability 8.6, 8.9, and NVIDIA H100 has 9.0; it was built on Linux x86_64, "
                      "and this is Windows AMD64; it was built with the driver 580.65.06, and this is the older 575.1."),
            std::string::npos)
      << said;
  for (const char *driver : {"581.0", "580.65.06"}) {
    pd::Machine machine = kL4;
    machine.driver = driver;
    EXPECT_EQ(refusal(built, machine), "");
  }
}

TEST(Engine, built_to_be_compatible_runs_with_later_versions_and_gpus) {
  pd::SideCar built = side_car();
  built.engine = "tensorrt";
  built.tensorrt_version = "10.13.0";
  built.version_compatible = built.hardware_compatible = true;
  built.compute_capabilities = {"8.0"};
  pd::Machine machine = kL4;
  for (const auto &[version, capability, runs] :
       {std::tuple("10.16.1", "8.9", true), {"10.12.0", "8.9", false}, {"11.4.0", "8.9", false}, {"10.13.0", "7.5", false}}) {
    machine.tensorrt_version = version;
    machine.compute_capability = capability;
    EXPECT_EQ(refusal(built, machine).empty(), runs) << version;
  }
}

TEST(Engine, runs_in_the_tightest_profile_that_takes_the_shapes) {
  pd::SideCar built = side_car();
  built.profiles.insert(built.profiles.begin(), {{"input_ids", {{1, 1}, {1, 256}, {8, 512}}}});
  EXPECT_EQ(profile_of(built, {2, 48}), 1u);
  EXPECT_EQ(profile_of(built, {2, 49}), 0u);
  EXPECT_EQ(profile_of(built, {8, 32}), 0u);
  for (const std::vector<std::int64_t> &shape : {std::vector<std::int64_t>{9, 32}, {2}, {1, 2, 3}}) {
    EXPECT_THROW(profile_of(built, shape), pd::InputError);
  }
  try {
    profile_of(side_car(), {9, 32});
    FAIL();
  } catch (const pd::InputError &error) {
    EXPECT_STREQ(error.what(),
                 "The engine has no profile for input_ids [9, 32]; its profiles are length=16:32:48. Change the "
                 "input's size, or build an engine with --shapes for it.");
  }
}
