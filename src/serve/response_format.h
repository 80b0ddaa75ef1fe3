#pragma once
/// What an answer must follow, as requests say it: OpenAI's response_format, vLLM's structured_outputs and guided_…,
/// llama.cpp's json_schema and grammar. It is enforced, or the request is refused.

#include <functional>
#include <memory>
#include <optional>

#include "infer/constraint.h"
#include "infer/sampling.h"
#include "serve/field_reader.h"

namespace tailor {

/// None where the request asks for nothing. What is wrong, or two at a time, is left in `in`.
std::optional<ConstraintSpec> read_constraint(FieldReader& in);

/// Makes the constraint of each answer.
using ConstraintFactory = std::function<Result<std::unique_ptr<TokenConstraint>>()>;
ConstraintFactory constraint_factory(std::shared_ptr<const Constraint> constraint);

}  // namespace tailor
