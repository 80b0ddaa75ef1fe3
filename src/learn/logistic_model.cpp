// Using, writing and reading a fitted model; fitting is in logistic_regression.cpp.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/json.h"
#include "core/safetensors.h"
#include "learn/logistic_problem.h"
#include "learn/logistic_regression.h"

namespace tailor {

namespace {

constexpr std::size_t kFewRows = 64;  // below, turning the weights round costs more than the products

/// As logistic_logits, added up in the same order, from the weights as they lie.
void few_sparse_logits(const LogisticModel& model, const CsrMatrix& x, Matrix& out) {
  for (std::size_t i = 0; i < x.rows; ++i) {
    for (std::size_t k = 0; k < model.weights.rows; ++k) {
      const auto weights = model.weights.row(k);
      float z = model.intercepts[k];
      for (std::size_t e = x.starts[i]; e < x.starts[i + 1]; ++e) z = std::fma(x.values[e], weights[x.columns[e]], z);
      out.row(i)[k] = z;
    }
  }
}

}  // namespace

Matrix LogisticModel::probabilities(const Features& x, int threads) const {
  if (x.cols() != features) {
    throw Exception({ErrorCode::kInvalidArgument,
                     fmt::format("the linear model was fitted on {} features, these rows have {}", features, x.cols()),
                     ""});
  }
  const std::size_t o = weights.rows;
  Matrix p(x.rows(), o);
  if (x.sparse() != nullptr && x.rows() <= kFewRows) {
    few_sparse_logits(*this, *x.sparse(), p);
  } else {
    std::vector<double> parameters((features + 1) * o);
    for (std::size_t k = 0; k < o; ++k) {
      for (std::size_t j = 0; j < features; ++j) parameters[j * o + k] = static_cast<double>(weights.row(k)[j]);
      parameters[features * o + k] = static_cast<double>(intercepts[k]);
    }
    logistic_logits(x, parameters, o, p.data, threads);
  }
  softmax_rows(p, threads);
  Matrix out(x.rows(), static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < p.rows; ++i) {
    const auto from = p.row(i);
    const auto to = out.row(i);
    if (o == 1) {
      to[static_cast<std::size_t>(output_class[0])] = 1.0f - from[0];
      to[static_cast<std::size_t>(output_class[1])] = from[0];
      continue;
    }
    for (std::size_t k = 0; k < o; ++k) to[static_cast<std::size_t>(output_class[k])] = from[k];
  }
  return out;
}

std::vector<int> LogisticModel::predict(const Features& x, int threads) const {
  const Matrix p = probabilities(x, threads);
  std::vector<int> out(p.rows);
  for (std::size_t i = 0; i < p.rows; ++i) {
    const auto row = p.row(i);
    out[i] = static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
  }
  return out;
}

Status LogisticModel::save(const std::filesystem::path& file) const {
  const std::vector<SafeTensor> tensors = {
      safe_tensor<float>("weight", "F32",
                         {static_cast<std::int64_t>(weights.rows), static_cast<std::int64_t>(features)}, weights.data),
      safe_tensor<float>("bias", "F32", {static_cast<std::int64_t>(intercepts.size())}, intercepts)};
  return write_safetensors(file, tensors,
                           {{"format", "tailor-logistic-regression-1"},
                            {"classes", std::to_string(classes)},
                            {"output_class", dump_json(Json(output_class))},
                            {"c", fmt::format("{}", c)},
                            {"iterations", std::to_string(iterations)},
                            {"converged", converged ? "true" : "false"}});
}

Result<LogisticModel> LogisticModel::load(const std::filesystem::path& file) {
  TAILOR_TRY(const SafetensorsFile tensors, SafetensorsFile::open(file));
  const auto corrupt = [&](std::string_view what) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "make the package again"};
  };
  const auto meta = [&](const char* key) {
    const auto it = tensors.metadata().find(key);
    return it == tensors.metadata().end() ? std::string() : it->second;
  };
  if (meta("format") != "tailor-logistic-regression-1") {
    return corrupt(
        fmt::format("expected a linear model of format tailor-logistic-regression-1, seen '{}'", meta("format")));
  }
  TAILOR_TRY(const SafeTensor weight, tensors.get("weight", "F32", 2));
  TAILOR_TRY(const SafeTensor bias, tensors.get("bias", "F32", 1));
  TAILOR_TRY(const Json classes_json, parse_json(meta("classes"), "classes"));
  TAILOR_TRY(const Json output_json, parse_json(meta("output_class"), "output_class"));
  if (!classes_json.is_number_integer() || !output_json.is_array())
    return corrupt("classes or output_class is malformed");
  LogisticModel model;
  const auto classes = classes_json.get<std::int64_t>();
  if (classes < 2 || classes > (1 << 24)) return corrupt(fmt::format("{} classes", classes));
  model.classes = static_cast<int>(classes);
  for (const Json& c : output_json) {
    const bool rises = c.is_number_integer() && c.get<std::int64_t>() < classes &&
                       c.get<std::int64_t>() > (model.output_class.empty() ? -1 : model.output_class.back());
    if (!rises) return corrupt("output_class must hold ascending class numbers");
    model.output_class.push_back(c.get<int>());
  }
  const std::size_t outputs = model.output_class.size() == 2 ? 1 : model.output_class.size();
  if (model.output_class.size() < 2 || weight.shape[0] != static_cast<std::int64_t>(outputs) ||
      bias.shape[0] != weight.shape[0]) {
    return corrupt(fmt::format("{} outputs do not fit weights of {} rows and {} intercepts", outputs, weight.shape[0],
                               bias.shape[0]));
  }
  model.features = static_cast<std::size_t>(weight.shape[1]);
  model.weights = Matrix(outputs, model.features);
  std::copy_n(weight.bytes.data(), weight.bytes.size(), reinterpret_cast<char*>(model.weights.data.data()));
  model.intercepts.resize(outputs);
  std::copy_n(bias.bytes.data(), bias.bytes.size(), reinterpret_cast<char*>(model.intercepts.data()));
  const auto finite = [](float v) { return std::isfinite(v); };
  if (!std::ranges::all_of(model.weights.data, finite) || !std::ranges::all_of(model.intercepts, finite)) {
    return corrupt("a weight is not a finite number");
  }
  if (const auto c = parse_json(meta("c"), "c"); c && c->is_number()) model.c = c->get<double>();
  if (const auto n = parse_json(meta("iterations"), "iterations"); n && n->is_number_integer())
    model.iterations = n->get<int>();
  model.converged = meta("converged") == "true";
  return model;
}

}  // namespace tailor
