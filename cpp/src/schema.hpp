// Checks a document against bundle.schema.json, the published schema, which is compiled into the library.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace pd {

using Json = nlohmann::ordered_json;

// The first thing in `document` that breaks the schema: its place and what was expected, as pydantic words it. Numbers
// written as text, which Python would convert, are refused.
std::optional<std::string> schema_problem(const Json &document);

}  // namespace pd
