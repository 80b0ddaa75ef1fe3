#pragma once
/// The table of settings as others read it.

#include <string>

#include "core/json.h"

namespace tailor {

/// JSON Schema (2020-12) of a configuration file: our names, those of other tools, and keys that are accepted though
/// they change nothing. What only several keys together make wrong (two names with different values) it does not say.
Json tune_config_schema();

/// The tables of docs/CONFIG.md.
std::string tune_config_tables();

}  // namespace tailor
