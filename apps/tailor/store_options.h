#pragma once
/// What verbs that work on a store share.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/result.h"
#include "store/store.h"

namespace tailor {

/// --data DIR.
void add_data_option(CLI::App& verb, std::string& data);
/// An empty `data` is the usual place.
Result<std::unique_ptr<Store>> open_store(const std::string& data, bool must_exist);

std::string utc(std::optional<std::int64_t> unix_seconds);  // "2026-11-30 06:00 UTC"; "-" where absent

}  // namespace tailor
