// Texts of messages, formed as Python forms them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>

namespace pd {

// All parts one after the other, numbers without separators whatever the program's locale.
template <class... Parts>
std::string concat(const Parts &...parts) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  (stream << ... << parts);
  return stream.str();
}

// As Python's repr() of a str: in single quotes, or in double ones where the text has single ones only.
std::string repr(std::string_view text);

// As Python's str() of a list of numbers: "[2, 3]".
std::string list_text(const std::int64_t *values, std::size_t count);

// `text(item)` of each item, with ", " between.
template <class Items, class Text>
std::string joined(const Items &items, const Text &text) {
  std::string all;
  for (const auto &item : items)
    all += (all.empty() ? "" : ", ") + std::string(text(item));
  return all;
}

}  // namespace pd
