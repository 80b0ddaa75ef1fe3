#pragma once
/// Which model answers a request, and models that are computed elsewhere: the seams where routing between models and
/// providers comes in.

#include <string_view>

#include "serve/api_context.h"

namespace tailor {

/// What a request says that a choice may go by.
struct RouteQuestion {
  std::string_view asked;  // the request's "model"; empty: it names none
  const Json& body;        // the request
  const ApiCall& call;     // who asks, and at which route
};

/// Threads: called from any, concurrently; must not block.
class ModelRouter {
 public:
  virtual ~ModelRouter() = default;
  /// An error is the answer.
  virtual ApiResult<ServedModelPtr> choose(const RouteQuestion& question) = 0;
};

/// The model of this name; of none: the first. Where the viewer sees no such model it is told which there are.
ApiResult<ServedModelPtr> model_of_name(const ModelRegistry& models, const ModelViewer& viewer, std::string_view name);

/// By model_of_name().
class NamedModels final : public ModelRouter {
 public:
  explicit NamedModels(const ModelRegistry& models) : models_(models) {}
  ApiResult<ServedModelPtr> choose(const RouteQuestion& question) override;

 private:
  const ModelRegistry& models_;
};

/// Answers whole requests for a model that is not computed here (ServedModel::provider). Threads: as ModelRouter.
class ModelProvider {
 public:
  virtual ~ModelProvider() = default;
  /// Answers the call, now or later, with what its client has asked for. An error is the answer.
  virtual ApiFailure answer(const ApiCallPtr& call, const ServedModelPtr& model, const Json& body) const = 0;
};

}  // namespace tailor
