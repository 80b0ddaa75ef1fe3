#pragma once
/// The fields that chat completions and completions have in common: how answers are drawn and told.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "infer/engine.h"
#include "serve/api_context.h"

namespace tailor {

struct GenerationParams {
  SamplingOptions sampling;
  int choices = 1;
  bool stream = false, include_usage = false, continuous_usage = false;
  bool invariant = false;   // see EngineRequest
  bool repeatable = false;  // a seed was given
  int priority = 0;
  std::string cache_salt;  // the caller's own, within its partition
};

/// Reads them; what is wrong is left in `in`. `usual_tokens`: of an answer where the request does not say.
GenerationParams read_generation_params(FieldReader& in, const ApiLimits& limits, int vocabulary, int usual_tokens);

}  // namespace tailor
