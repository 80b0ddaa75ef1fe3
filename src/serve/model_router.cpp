#include "serve/model_router.h"

#include <fmt/format.h>

namespace tailor {

ApiResult<ServedModelPtr> model_of_name(const ModelRegistry& models, const ModelViewer& viewer, std::string_view name) {
  if (ServedModelPtr model = models.find(std::string(name), viewer)) return model;
  std::string known;
  for (const ServedModelPtr& model : models.list()) {
    if (!model->visible_to(viewer)) continue;
    if (known.size() > 500) {
      known += ", …";
      break;
    }
    known += (known.empty() ? "" : ", ") + model->id;
  }
  return ApiError{
      404, "invalid_request_error", "model_not_found",
      fmt::format("the model '{}' does not exist; there is {}", name.substr(0, 128), known.empty() ? "none" : known),
      "model"};
}

ApiResult<ServedModelPtr> NamedModels::choose(const RouteQuestion& question) {
  return model_of_name(models_, viewer_of(question.call.principal), question.asked);
}

}  // namespace tailor
