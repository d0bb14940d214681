#include "text.hpp"

#include <cstdio>

namespace pd {

std::string repr(std::string_view text) {
  const bool single = text.find('\'') != std::string_view::npos, both = text.find('"') != std::string_view::npos;
  const char quote = single && !both ? '"' : '\'';
  std::string all(1, quote);
  for (const char letter : text) {
    if (letter == quote || letter == '\\') {
      all += {'\\', letter};
    } else if (letter == '\n') {
      all += "\\n";
    } else if (letter == '\r') {
      all += "\\r";
    } else if (letter == '\t') {
      all += "\\t";
    } else if (static_cast<unsigned char>(letter) < 0x20 || letter == 0x7f) {
      char code[5];
      std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned>(letter));
      all += code;
    } else {
      all += letter;
    }
  }
  return all + quote;
}

std::string list_text(const std::int64_t *values, std::size_t count) {
  std::string all = "[";
  for (std::size_t index = 0; index < count; ++index)
    all += (index ? ", " : "") + std::to_string(values[index]);
  return all + "]";
}

}  // namespace pd
