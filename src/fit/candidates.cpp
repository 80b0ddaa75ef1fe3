#include "fit/candidates.h"

#include <fmt/format.h>

#include <algorithm>

#include "fit/methods.h"
#include "fit/tuned_encoder.h"
#include "fit/tuned_search.h"
#include "text/edit_distance.h"

namespace tailor {

Json to_json(const MachineSpeed& s) {
  return Json{{"gemm_gflops", s.gemm_gflops},
              {"decoder_tokens_per_second", s.decoder_tokens_per_second},
              {"prompting_tokens_per_second", s.prompting_tokens_per_second},
              {"decoder_parameters", s.decoder_parameters},
              {"encoder_tokens_per_second", s.encoder_tokens_per_second},
              {"encoder_parameters", s.encoder_parameters}};
}

MachineSpeed machine_speed_from_json(const Json& json) {
  MachineSpeed s;
  s.gemm_gflops = json.at("gemm_gflops");
  s.decoder_tokens_per_second = json.at("decoder_tokens_per_second");
  s.prompting_tokens_per_second = json.value("prompting_tokens_per_second", s.decoder_tokens_per_second);
  s.decoder_parameters = json.at("decoder_parameters");
  s.encoder_tokens_per_second = json.at("encoder_tokens_per_second");
  s.encoder_parameters = json.at("encoder_parameters");
  return s;
}

namespace {

Candidate tuned(const TunedSearch& row) {
  const bool encoder = row.kind == ModelKind::kEncoder;
  return {row.candidate,
          row.title,
          encoder ? ModelRole::kEncoder : ModelRole::kDecoder,
          true,
          row.priority,
          row.simplicity,
          row.changes,
          encoder ? estimate_tuned_encoder : estimate_tuned_decoder,
          encoder ? run_tuned_encoder : run_tuned_decoder,
          encoder ? load_tuned_encoder : load_prompted,
          row.usual};
}

Candidate tuned(std::string_view name) {
  return tuned(*find_tuned_search(name));
}

Estimate no_estimate(const TrialContext&) {
  return {};
}
Result<TrialOutcome> never_run(TrialContext& context) {
  return Error{ErrorCode::kUnavailable, std::string(context.candidate.needs), ""};
}

std::vector<Candidate> make_table() {
  std::vector<Candidate> table{
      {"majority", "Most frequent label", ModelRole::kNone, false, 0, 0, "one number per label", estimate_majority,
       run_majority, load_majority},
      {"tfidf", "TF-IDF with a linear model", ModelRole::kNone, false, 1, 1, "a weight per word and label, readable",
       estimate_tfidf, run_tfidf, load_tfidf},
      {"features", "Frozen embeddings with logistic regression", ModelRole::kEncoder, false, 2, 3,
       "one linear layer; the base model is unchanged", estimate_features, run_features, load_features},
      {"neighbours", "Nearest neighbours on embeddings", ModelRole::kEncoder, false, 3, 2,
       "nothing; every answer names the rows it comes from", estimate_neighbours, run_neighbours, load_neighbours},
      tuned("head"),
      {"zero-shot", "Zero-shot prompting", ModelRole::kDecoder, false, 7, 7, "nothing; the prompt is in plain words",
       estimate_zero_shot, run_zero_shot, load_prompted},
      {"few-shot-retrieved", "Few-shot prompting, retrieved demonstrations", ModelRole::kDecoder, false, 8, 9,
       "nothing; the prompt shows the rows it leans on", estimate_few_shot_retrieved, run_few_shot_retrieved,
       load_prompted},
      tuned("full"),
      tuned("lora"),
      {"few-shot", "Few-shot prompting, random demonstrations", ModelRole::kDecoder, false, 9, 8,
       "nothing; the prompt is in plain words", estimate_few_shot, run_few_shot, load_prompted},
      {"features-decoder", "Frozen decoder states with logistic regression", ModelRole::kDecoder, false, 10, 10,
       "one linear layer; the base model is unchanged", estimate_features, run_features, load_features},
      tuned("lora-decoder"),
  };
  for (const TunedSearch& row : tuned_searches()) {
    if (!row.usual) table.push_back(tuned(row));
  }
  const int last = table.back().priority + 1;
  table.push_back({"distill", "Distillation", ModelRole::kEncoder, true, last, last, "every weight of the model",
                   no_estimate, never_run, load_tuned_encoder, false,
                   "it learns from a teacher, and fit has none: tailor tune --method distill --teacher PACKAGE"});
  return table;
}

bool has_model(const Candidate& candidate, ModelKinds models) {
  switch (candidate.role) {
    case ModelRole::kNone:
      return true;
    case ModelRole::kEncoder:
      return models.encoder;
    case ModelRole::kDecoder:
      return models.decoder;
    case ModelRole::kAny:
      return models.encoder || models.decoder;
  }
  return false;
}

}  // namespace

const std::vector<Candidate>& candidate_table() {
  // In the order in which they run and stand in the table: cheap ones first, so that a short budget still answers, and
  // the usual ones before the others.
  static const std::vector<Candidate> kTable = make_table();
  return kTable;
}

const Candidate* find_candidate_method(std::string_view method) {
  const auto& table = candidate_table();
  const auto it = std::find_if(table.begin(), table.end(), [&](const Candidate& c) { return c.method == method; });
  return it == table.end() ? nullptr : &*it;
}

Result<std::vector<const Candidate*>> choose_candidates(const std::vector<std::string>& methods, ModelKinds models) {
  const auto& table = candidate_table();
  std::vector<bool> chosen(table.size(), methods.empty());
  for (const std::string& name : methods) {
    const Candidate* found = find_candidate_method(name);
    const Candidate* other = find_candidate_method(name + "-decoder");
    if (other != nullptr && (found == nullptr || (!has_model(*found, models) && has_model(*other, models))))
      found = other;
    if (found == nullptr && name != "all" && name != "usual") {
      std::vector<std::string> known{"usual", "all"};
      for (const auto& c : table) known.emplace_back(c.method);
      const std::string nearest = nearest_name(name, known);
      return Error{ErrorCode::kInvalidArgument, fmt::format("--method {}: there is no such method", name),
                   (nearest.empty() ? std::string() : fmt::format("did you mean {}? ", nearest)) +
                       "`tailor fit --method list` shows them"};
    }
    for (std::size_t i = 0; i < table.size(); ++i)
      chosen[i] = chosen[i] || &table[i] == found || name == "all" || (name == "usual" && table[i].usual);
  }
  std::vector<const Candidate*> out;
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (chosen[i] && has_model(table[i], models)) out.push_back(&table[i]);
  }
  return out;
}

}  // namespace tailor
