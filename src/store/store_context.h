#pragma once
/// What the parts of a store share.

#include <cstdint>
#include <functional>

#include "store/database.h"
#include "store/store_directory.h"

namespace tailor {

using UnixClock = std::function<std::int64_t()>;  // seconds since 1970

/// Borrowed; the store outlives its parts.
struct StoreContext {
  Database& database;
  const StoreDirectory& directory;
  const UnixClock& clock;
};

}  // namespace tailor
