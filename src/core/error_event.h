#pragma once
/// An error as an event on a line of JSON, the way our programs tell each other what went wrong.

#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// "invalid_argument", "not_found", "corrupt_data", "io", "out_of_memory", "unavailable", "cancelled", "internal".
std::string_view name_of(ErrorCode code);

/// {"event": "error", "code", "message", "hint", "exit_code"}
Json error_event(const Error& error);
/// An unknown code becomes kInternal.
Error error_from_event(const Json& event);

}  // namespace tailor
