#include "core/error_event.h"

#include <algorithm>
#include <array>

namespace tailor {
namespace {

// In the order of ErrorCode; they never change.
constexpr std::array<std::string_view, 8> kNames = {"invalid_argument", "not_found",   "corrupt_data", "io",
                                                    "out_of_memory",    "unavailable", "cancelled",    "internal"};

}  // namespace

std::string_view name_of(ErrorCode code) {
  return kNames[static_cast<std::size_t>(code)];
}

Json error_event(const Error& error) {
  return Json{{"event", "error"},
              {"code", name_of(error.code)},
              {"message", error.message},
              {"hint", error.hint},
              {"exit_code", exit_code_for(error.code)}};
}

Error error_from_event(const Json& event) {
  const std::string code = event.value("code", "internal");
  const auto at = std::find(kNames.begin(), kNames.end(), code);
  return {at == kNames.end() ? ErrorCode::kInternal : static_cast<ErrorCode>(at - kNames.begin()),
          event.value("message", "unknown error"), event.value("hint", "")};
}

}  // namespace tailor
