#include "tune/trainer_state.h"

#include <cmath>
#include <limits>
#include <utility>

#include "core/json.h"

namespace tailor::tune {
namespace {

/// Those that a task may have or not.
constexpr std::pair<const char*, std::optional<double> Scores::*> kScores[] = {
    {"accuracy", &Scores::accuracy},
    {"macro_f1", &Scores::macro_f1},
    {"micro_f1", &Scores::micro_f1},
    {"entity_f1", &Scores::entity_f1},
    {"token_accuracy", &Scores::token_accuracy}};

}  // namespace

Json to_json(const TrainerState::Evaluation& e) {
  Json out{{"step", e.step}, {"loss", e.scores.loss}};
  for (const auto& [name, score] : kScores) {
    if (const std::optional<double>& value = e.scores.*score) out[name] = *value;
  }
  out["rows"] = e.scores.rows;
  return out;
}

Json to_json(const TrainerState& s) {
  Json losses = Json::array();  // JSON has no NaN: a skipped step is null
  for (const double loss : s.losses) losses.push_back(std::isfinite(loss) ? Json(loss) : Json(nullptr));
  Json evaluations = Json::array();
  for (const auto& evaluation : s.evaluations) evaluations.push_back(to_json(evaluation));
  return {{"step", s.step},
          {"losses", losses},
          {"evaluations", evaluations},
          {"best", s.best},
          {"without_gain", s.without_gain},
          {"excluded", s.excluded},
          {"skipped_steps", s.skipped_steps},
          {"bad_in_a_row", s.bad_in_a_row},
          {"rollbacks", s.rollbacks},
          {"rate_scale", s.rate_scale},
          {"tokens", s.tokens},
          {"computed_tokens", s.computed_tokens},
          {"examples", s.examples},
          {"seconds", s.seconds},
          {"cpu_seconds", s.cpu_seconds},
          {"evaluation_seconds", s.evaluation_seconds},
          {"evaluation_cpu_seconds", s.evaluation_cpu_seconds}};
}

Result<TrainerState> state_from_json(const Json& v, const std::string& where) {
  TrainerState s;
  try {
    v.at("step").get_to(s.step);
    for (const Json& loss : v.at("losses")) {
      s.losses.push_back(loss.is_null() ? std::numeric_limits<double>::quiet_NaN() : loss.get<double>());
    }
    for (const Json& e : v.at("evaluations")) {
      TrainerState::Evaluation evaluation;
      e.at("step").get_to(evaluation.step);
      e.at("loss").get_to(evaluation.scores.loss);
      for (const auto& [name, score] : kScores) {
        if (e.contains(name)) evaluation.scores.*score = e.at(name).get<double>();
      }
      e.at("rows").get_to(evaluation.scores.rows);
      s.evaluations.push_back(evaluation);
    }
    v.at("best").get_to(s.best);
    v.at("without_gain").get_to(s.without_gain);
    v.at("excluded").get_to(s.excluded);
    v.at("skipped_steps").get_to(s.skipped_steps);
    v.at("bad_in_a_row").get_to(s.bad_in_a_row);
    v.at("rollbacks").get_to(s.rollbacks);
    v.at("rate_scale").get_to(s.rate_scale);
    v.at("tokens").get_to(s.tokens);
    v.at("computed_tokens").get_to(s.computed_tokens);
    v.at("examples").get_to(s.examples);
    v.at("seconds").get_to(s.seconds);
    v.at("cpu_seconds").get_to(s.cpu_seconds);
    v.at("evaluation_seconds").get_to(s.evaluation_seconds);
    v.at("evaluation_cpu_seconds").get_to(s.evaluation_cpu_seconds);
  } catch (const Json::exception&) {
    return Error{ErrorCode::kCorruptData, where + ": the checkpoint's state is incomplete", "start the job anew"};
  }
  if (s.step < 0 || s.best >= static_cast<std::int64_t>(s.evaluations.size())) {
    return Error{ErrorCode::kCorruptData, where + ": the checkpoint's state makes no sense", "start the job anew"};
  }
  return s;
}

}  // namespace tailor::tune
