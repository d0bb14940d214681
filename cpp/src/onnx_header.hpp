// What an ONNX file says about itself: its versions, and the files that hold its weights. As in
// perceiver_deploy/bundle/onnx_header.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pd {

// Where the data of one tensor lies: a file beside the model, and a part of it (to its end if `length` is 0).
struct ExternalData {
  std::string location;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

struct OnnxHeader {
  std::uint64_t ir_version = 0;
  std::map<std::string, std::uint64_t> opsets;  // by domain; "" is ONNX's own
  std::vector<ExternalData> external;

  std::uint64_t opset() const;
};

// Throws BundleError where the file cannot be read or is not ONNX.
OnnxHeader read_onnx_header(const std::string &path);

// The files beside an ONNX file that its weights are read from, each at least as long as what is read from it. Throws
// BundleError where they lie outside its folder, in a file that is not there, or beyond the end of the file.
std::vector<std::string> external_files(const std::string &path);

}  // namespace pd
