#include "onnx_header.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "error.hpp"

namespace {

namespace fs = std::filesystem;

// A field of bytes: tag, length (below 128) and content.
std::string field(int number, const std::string &content) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(content.size()) + content;
}

std::string number(int field, int value) {
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}

std::string entry(const std::string &key, const std::string &value) {
  return field(13, field(1, key) + field(2, value));
}

// IR version 9, opset 20, and a graph with one tensor of those entries.
std::string model(const std::string &entries) {
  return number(1, 9) + field(8, number(2, 20)) + field(7, field(5, entries));
}

class OnnxFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) / "onnx_header" / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "inside");
  }

  std::string write(const std::string &name, const std::string &content) const {
    const fs::path path = folder_ / "inside" / name;
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

  std::string refusal(const std::string &content) const {
    const std::string path = write("model.onnx", content);
    try {
      pd::external_files(path);
      return "";
    } catch (const pd::BundleError &error) {
      return error.what();
    }
  }

  fs::path folder_;
};

}  // namespace

TEST_F(OnnxFile, has_its_versions_read) {
  const pd::OnnxHeader header = pd::read_onnx_header(write("model.onnx", model("")));
  EXPECT_EQ(header.ir_version, 9u);
  EXPECT_EQ(header.opset(), 20u);
  EXPECT_TRUE(header.external.empty());
}

TEST_F(OnnxFile, names_the_files_of_its_weights_once) {
  const std::string data = write("w.data", "0123456789");
  const std::string path = write("model.onnx", model(entry("location", "w.data") + entry("offset", "2")) +
                                                   field(7, field(5, entry("location", "w.data"))));
  EXPECT_EQ(pd::external_files(path), std::vector<std::string>{data});
}

TEST_F(OnnxFile, is_refused_with_weights_outside_its_folder) {
  std::ofstream(folder_ / "secret") << "0123456789";
  fs::create_symlink(folder_ / "secret", folder_ / "inside" / "link");
  EXPECT_NE(refusal(model(entry("location", "../secret"))).find("outside its folder"), std::string::npos);
  EXPECT_NE(refusal(model(entry("location", (folder_ / "secret").string()))).find("outside its folder"),
            std::string::npos);
  EXPECT_NE(refusal(model(entry("location", "link"))).find("a link to a file outside"), std::string::npos);
  EXPECT_NE(refusal(model(entry("location", "absent"))).find("which is not there"), std::string::npos);
}

TEST_F(OnnxFile, is_refused_with_weights_beyond_the_end_of_their_file) {
  write("w.data", "0123456789");
  const std::string said = refusal(model(entry("location", "w.data") + entry("offset", "4") + entry("length", "7")));
  EXPECT_NE(said.find("up to byte 11, and that file has 10 bytes"), std::string::npos) << said;
  EXPECT_NE(
      refusal(model(entry("location", "w.data") + entry("offset", "18446744073709551615") + entry("length", "2"))), "");
  EXPECT_NE(refusal(model(entry("location", "w.data") + entry("offset", "-1"))).find("is not an ONNX file"),
            std::string::npos);
}

TEST_F(OnnxFile, is_refused_when_its_bytes_are_no_messages) {
  for (const std::string &content : {std::string(), std::string("\xff"),
                                     std::string("\x3a\x7f"
                                                 "a"),
                                     std::string(11, '\xff'), std::string("\x07")}) {
    EXPECT_NE(refusal(content).find("is not an ONNX file"), std::string::npos);
  }
}

TEST_F(OnnxFile, is_refused_when_messages_nest_too_deep) {
  // A graph in an attribute in a node in a graph, with lengths of two bytes.
  std::string inner;
  const auto wide = [](int number, const std::string &content) {
    return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>((content.size() & 0x7f) | 0x80) +
           static_cast<char>(content.size() >> 7) + content;
  };
  for (int depth = 0; depth < 30; ++depth)
    inner = wide(1, wide(5, wide(6, inner)));
  EXPECT_NE(refusal(wide(7, inner)).find("nested more than 64 deep"), std::string::npos);
}
