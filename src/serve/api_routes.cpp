#include "serve/api_routes.h"

#include "serve/api_handlers.h"
#include "serve/page.h"

namespace tailor {
namespace {

bool matches(std::string_view pattern, std::string_view path, bool rest, std::map<std::string, std::string>& out) {
  while (!pattern.empty() || !path.empty()) {
    if (pattern.empty() || path.empty() || pattern.front() != '/' || path.front() != '/') return false;
    pattern.remove_prefix(1);
    path.remove_prefix(1);
    const std::string_view wanted = pattern.substr(0, pattern.find('/'));
    const bool all = rest && wanted.size() == pattern.size();
    const std::string_view got = all ? path : path.substr(0, path.find('/'));
    if (wanted.size() > 2 && wanted.front() == '{') {
      if (got.empty()) return false;
      out[std::string(wanted.substr(1, wanted.size() - 2))] = std::string(got);
    } else if (wanted != got) {
      return false;
    }
    pattern.remove_prefix(wanted.size());
    path.remove_prefix(got.size());
  }
  return true;
}

ApiRoute rest(ApiRoute route) {
  route.rest = true;
  return route;
}
ApiRoute while_draining(ApiRoute route) {
  route.while_draining = true;
  return route;
}

}  // namespace

const std::vector<ApiRoute>& api_routes() {
  static const std::vector<ApiRoute> kRoutes{
      {"GET", "/", ApiScope::kNone, handle_page, true},
      {"GET", "/assets/{name}", ApiScope::kNone, handle_page, true},
      while_draining({"GET", "/livez", ApiScope::kNone, handle_livez, true}),
      while_draining({"GET", "/readyz", ApiScope::kNone, handle_readyz, true}),
      while_draining({"GET", "/health", ApiScope::kInfer, handle_health, true}),
      while_draining({"GET", "/v1/health", ApiScope::kInfer, handle_health, true}),
      while_draining({"GET", "/ping", ApiScope::kInfer, handle_livez, true}),
      while_draining({"GET", "/version", ApiScope::kInfer, handle_version, true}),
      while_draining({"GET", "/metrics", ApiScope::kMetrics, handle_metrics}),
      {"GET", "/openapi.json", ApiScope::kInfer, handle_openapi, true},
      {"GET", "/v1/models", ApiScope::kInfer, handle_models, true},
      rest({"GET", "/v1/models/{id}", ApiScope::kInfer, handle_model, true}),
      rest({"DELETE", "/v1/models/{id}", ApiScope::kInferOrAdmin, handle_delete_model}),
      {"POST", "/v1/chat/completions", ApiScope::kInfer, handle_chat_completions},
      {"POST", "/v1/completions", ApiScope::kInfer, handle_completions},
      {"POST", "/v1/embeddings", ApiScope::kInfer, handle_embeddings},
      {"POST", "/v1/rerank", ApiScope::kInfer, handle_rerank},
      {"POST", "/rerank", ApiScope::kInfer, handle_rerank},
      {"POST", "/v1/classify", ApiScope::kInfer, handle_classify},
      {"POST", "/v1/tag", ApiScope::kInfer, handle_tag},
      {"POST", "/v1/extract", ApiScope::kInfer, handle_extract},
      {"POST", "/v1/files", ApiScope::kInfer, handle_upload, false, make_upload, true},
      {"GET", "/v1/files", ApiScope::kInfer, handle_files, false, nullptr, true},
      {"GET", "/v1/files/{id}", ApiScope::kInfer, handle_file, false, nullptr, true},
      {"DELETE", "/v1/files/{id}", ApiScope::kInfer, handle_delete_file, false, nullptr, true},
      {"GET", "/v1/files/{id}/content", ApiScope::kInfer, handle_file_content, false, nullptr, true},
      {"POST", "/v1/fine_tuning/jobs", ApiScope::kInfer, handle_create_job, false, nullptr, true},
      {"GET", "/v1/fine_tuning/jobs", ApiScope::kInfer, handle_jobs, false, nullptr, true},
      {"GET", "/v1/fine_tuning/jobs/{id}", ApiScope::kInfer, handle_job, false, nullptr, true},
      {"POST", "/v1/fine_tuning/jobs/{id}/cancel", ApiScope::kInfer, handle_cancel_job, false, nullptr, true},
      {"POST", "/v1/fine_tuning/jobs/{id}/pause", ApiScope::kInfer, handle_pause_job, false, nullptr, true},
      {"POST", "/v1/fine_tuning/jobs/{id}/resume", ApiScope::kInfer, handle_resume_job, false, nullptr, true},
      {"GET", "/v1/fine_tuning/jobs/{id}/events", ApiScope::kInfer, handle_job_events, false, nullptr, true},
      {"GET", "/v1/fine_tuning/jobs/{id}/checkpoints", ApiScope::kInfer, handle_job_checkpoints, false, nullptr, true},
      {"POST", "/v1/batches", ApiScope::kInfer, handle_create_batch, false, nullptr, true},
      {"GET", "/v1/batches", ApiScope::kInfer, handle_batches, false, nullptr, true},
      {"GET", "/v1/batches/{id}", ApiScope::kInfer, handle_batch, false, nullptr, true},
      {"POST", "/v1/batches/{id}/cancel", ApiScope::kInfer, handle_cancel_batch, false, nullptr, true},
      {"POST", "/tokenize", ApiScope::kInfer, handle_tokenize},
      {"POST", "/detokenize", ApiScope::kInfer, handle_detokenize},
      {"GET", "/tokenizer_info", ApiScope::kInfer, handle_tokenizer_info, true},
      {"POST", "/apply-template", ApiScope::kInfer, handle_apply_template},
      {"POST", "/v1/admin/models", ApiScope::kAdmin, handle_admin_load_model},
      rest({"DELETE", "/v1/admin/models/{id}", ApiScope::kAdmin, handle_admin_remove_model}),
      {"POST", "/v1/load_lora_adapter", ApiScope::kAdmin, handle_load_lora_adapter},
      {"POST", "/v1/unload_lora_adapter", ApiScope::kAdmin, handle_unload_lora_adapter},
  };
  return kRoutes;
}

std::span<const std::string_view> api_names_under() {
  static const std::vector<std::string_view> kPaths = [] {
    std::vector<std::string_view> out;
    for (const ApiRoute& route : api_routes()) {
      const std::string_view path = route.path;
      if (route.rest) out.push_back(path.substr(0, path.rfind('{')));
    }
    return out;
  }();
  return kPaths;
}

RouteMatch find_route(std::string_view method, std::string_view path) {
  RouteMatch out;
  if (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const ApiRoute& route : api_routes()) {
    std::map<std::string, std::string> parameters;
    if (!matches(route.path, path, route.rest, parameters)) continue;
    if (wanted == route.method) return {&route, std::move(parameters), ""};
    out.other_methods += (out.other_methods.empty() ? "" : ", ") + std::string(route.method);
  }
  return out;
}

}  // namespace tailor
