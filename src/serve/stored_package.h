#pragma once
/// A package of a store by what people call it.

#include <string>

#include "core/result.h"
#include "store/store.h"

namespace tailor {

/// "NAME" is the version in production, "NAME@VERSION" that one. An unknown one is told with those there are.
Result<PackageRecord> stored_package(Store& store, const std::string& reference);

}  // namespace tailor
