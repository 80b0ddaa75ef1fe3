#pragma once
/// The API described as OpenAPI 3.1: each route of api_routes(), what it takes with its limits, what it answers and
/// each status it may answer with.

#include <string>
#include <vector>

#include "core/json.h"
#include "serve/api_context.h"

namespace tailor {

Json openapi_document(const ApiLimits& limits);

/// Name of the schema in components.schemas that a route's body has; empty: it takes none.
std::string openapi_request(const std::string& method, const std::string& path);

/// Names of the query that a route reads.
std::vector<std::string> openapi_query(const std::string& method, const std::string& path);

}  // namespace tailor
