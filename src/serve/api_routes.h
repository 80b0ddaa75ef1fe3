#pragma once
/// The routes of the API as a table: what openapi.json describes, keys guard and handlers answer.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_context.h"

namespace tailor {

/// What a key must allow; kInferOrAdmin: either, and the handler looks whose it is.
enum class ApiScope : std::uint8_t { kNone, kInfer, kAdmin, kMetrics, kInferOrAdmin };

struct ApiRoute {
  const char* method;
  const char* path;  // "{name}" takes one segment, or with `rest` all that is left
  ApiScope scope;
  void (*handle)(const ApiServices&, const ApiCallPtr&);
  bool quick = false;  // answered on the I/O thread
  /// Takes the body as it comes, or refuses it; null: JSON in memory.
  ApiResult<std::unique_ptr<HttpBodySink>> (*sink)(const ApiServices&, const HttpHead&, const Principal&) = nullptr;
  bool needs_store = false;
  bool while_draining = false;  // also answered by a server that shuts down
  bool rest = false;            // names of models may hold slashes
};

const std::vector<ApiRoute>& api_routes();
/// Paths of which what follows is one name, slashes in it encoded or not: "/v1/models/".
std::span<const std::string_view> api_names_under();

struct RouteMatch {
  const ApiRoute* route = nullptr;  // null: see `other_methods`
  std::map<std::string, std::string> path;
  std::string other_methods;  // that the path has, "GET, POST"; empty: no such path
};
/// HEAD is answered as GET.
RouteMatch find_route(std::string_view method, std::string_view path);

}  // namespace tailor
