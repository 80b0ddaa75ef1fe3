#include "core/json_flaw.h"

#include <nlohmann/json.hpp>

namespace tailor {
namespace {

using nlohmann::json;

/// Builds nothing; keeps the first error.
struct FlawFinder : nlohmann::json_sax<json> {
  std::optional<JsonFlaw> flaw;

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return true; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return true; }
  bool number_float(number_float_t /*value*/, const string_t& /*digits*/) override { return true; }
  bool string(string_t& /*value*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*size*/) override { return true; }
  bool key(string_t& /*value*/) override { return true; }
  bool end_object() override { return true; }
  bool start_array(std::size_t /*size*/) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string& /*token*/, const json::exception& error) override {
    if (dynamic_cast<const json::parse_error*>(&error) == nullptr) return false;  // a number out of range
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto colon = reason.find(": "); colon != std::string::npos) reason.erase(0, colon + 2);
    flaw = JsonFlaw{position > 0 ? position - 1 : 0, std::move(reason)};
    return false;
  }
};

}  // namespace

std::optional<JsonFlaw> find_json_flaw(std::string_view text) {
  FlawFinder finder;
  json::sax_parse(text, &finder);
  return finder.flaw;
}

}  // namespace tailor
