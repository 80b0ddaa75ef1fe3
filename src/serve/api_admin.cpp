// Models loaded and dropped while the server runs, for keys of scope admin; vLLM's routes for adapters beside ours.

#include <fmt/format.h>

#include "serve/api_handlers.h"
#include "serve/model_admin.h"

namespace tailor {
namespace {

ApiError not_here() {
  return {501, "not_supported_error", "not_supported", "this server's models are those it was started with", ""};
}

/// Writes the entry of the audit log, without which nothing is changed.
BeforeChange audited(const ApiServices& services, const ApiCall& call, const char* action, Json details) {
  Store* store = services.admin->store();
  if (store == nullptr) return {};
  const std::string actor = call.principal.key_id.empty() ? "nobody" : call.principal.key_id;
  return [store, actor, action, details = std::move(details)](const std::string& id) -> Status {
    TAILOR_CHECK(store->audit().append({actor, action, id, details}));
    return {};
  };
}

ApiResult<Json> load_model(const ApiServices& services, ApiCall& call) {
  if (services.admin == nullptr) return not_here();
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  const std::string id = in.text("name", "", 128), package = in.text("package", "", 300),
                    model = in.text("model", "", 300), adapter = in.text("adapter", "", 300),
                    parent = in.text("parent", "", 128);
  if (static_cast<int>(!package.empty()) + static_cast<int>(!model.empty()) + static_cast<int>(!adapter.empty()) != 1)
    in.fail("package", "name one of 'package', 'model' and 'adapter'", "missing_required_parameter");
  if (in.error()) return *in.error();
  call.note_ignored(in);
  ModelAdmin& admin = *services.admin;
  const BeforeChange before =
      audited(services, call, "model.load", {{"package", package}, {"model", model}, {"adapter", adapter}});
  TAILOR_TRY(const ServedModelPtr served, !package.empty() ? admin.load_stored(package, id, before)
                                          : !model.empty() ? admin.load_base(model, id, before)
                                                           : admin.load_stored_adapter(adapter, parent, id, before));
  return served->describe();
}

ApiResult<Json> remove_model(const ApiServices& services, const ApiCall& call, const std::string& id) {
  if (services.admin == nullptr) return not_here();
  const Status removed = services.admin->remove(id, audited(services, call, "model.remove", Json::object()));
  if (!removed && removed.error().code == ErrorCode::kNotFound)
    return ApiError{404, "invalid_request_error", "model_not_found", removed.error().message, "model"};
  TAILOR_CHECK(removed);
  return Json{{"id", id}, {"object", "model"}, {"deleted", true}};
}

/// Off where no directory of adapters was named.
std::optional<ApiError> no_lora(const ApiServices& services) {
  if (services.admin != nullptr && services.admin->takes_adapters()) return std::nullopt;
  return ApiError{403, "permission_error", "not_enabled",
                  "adapters are not loaded over HTTP here; adapters_root in serve.yaml turns it on", ""};
}

ApiResult<Json> load_lora(const ApiServices& services, ApiCall& call) {
  if (const auto off = no_lora(services)) return *off;
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  const std::string name = in.required_text("lora_name"), path = in.required_text("lora_path");
  const std::string parent = in.text("base_model_name", "", 128);
  const bool replace = in.boolean("load_inplace", false);
  if (!in.error() && !replace && services.models->find(name))
    in.fail("lora_name", "is taken by another model", "already_loaded");
  if (in.error()) return *in.error();
  call.note_ignored(in);
  TAILOR_CHECK(
      services.admin->load_adapter(path, parent, name, audited(services, call, "model.load", {{"lora_path", path}})));
  return Json{{"message", fmt::format("Success: LoRA adapter '{}' added successfully.", name)}};
}

ApiResult<Json> unload_lora(const ApiServices& services, ApiCall& call) {
  if (const auto off = no_lora(services)) return *off;
  TAILOR_TRY(const Json body, parse_body(call.request.body));
  FieldReader in(body);
  const std::string name = in.required_text("lora_name");
  if (in.error()) return *in.error();
  const ServedModelPtr model = services.models->find(name);
  if (!model || model->parent.empty())
    return ApiError{404, "not_found_error", "model_not_found",
                    fmt::format("there is no adapter '{}'", name.substr(0, 128)), "lora_name"};
  TAILOR_TRY(const Json removed, remove_model(services, call, name));
  return Json{{"message", fmt::format("Success: LoRA adapter '{}' removed successfully.", name)}};
}

}  // namespace

void handle_admin_load_model(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(load_model(services, *call));
}
void handle_admin_remove_model(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(remove_model(services, *call, call->path.at("id")));
}
void handle_load_lora_adapter(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(load_lora(services, *call));
}
void handle_unload_lora_adapter(const ApiServices& services, const ApiCallPtr& call) {
  call->answer(unload_lora(services, *call));
}

}  // namespace tailor
