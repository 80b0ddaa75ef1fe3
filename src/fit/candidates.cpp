#include "fit/candidates.h"

#include <algorithm>

#include "fit/methods.h"

namespace tailor {

Json to_json(const MachineSpeed& s) {
  return Json{{"gemm_gflops", s.gemm_gflops}, {"decoder_tokens_per_second", s.decoder_tokens_per_second}, {"decoder_parameters", s.decoder_parameters},
              {"encoder_tokens_per_second", s.encoder_tokens_per_second}, {"encoder_parameters", s.encoder_parameters}};
}

MachineSpeed machine_speed_from_json(const Json& json) {
  MachineSpeed s;
  s.gemm_gflops = json.at("gemm_gflops");
  s.decoder_tokens_per_second = json.at("decoder_tokens_per_second");
  s.decoder_parameters = json.at("decoder_parameters");
  s.encoder_tokens_per_second = json.at("encoder_tokens_per_second");
  s.encoder_parameters = json.at("encoder_parameters");
  return s;
}

const std::vector<Candidate>& candidate_table() {
  // In the order in which they run and stand in the table: cheap ones first, so that a short budget still answers.
  static const std::vector<Candidate> kTable{
      {"majority", "Most frequent label", ModelRole::kNone, false, 0, 0, "one number per label", estimate_majority, run_majority, load_majority},
      {"tfidf", "TF-IDF with a linear model", ModelRole::kNone, false, 1, 1, "a weight per word and label, readable", estimate_tfidf, run_tfidf, load_tfidf},
      {"features", "Frozen embeddings with logistic regression", ModelRole::kEncoder, false, 2, 3, "one linear layer; the base model is unchanged", estimate_features,
       run_features, load_features},
      // {"neighbours", "Nearest neighbours on embeddings", ModelRole::kEncoder, false, 3, 2, "nothing; every answer names the rows it comes from", estimate_neighbours,
//       run_neighbours, load_neighbours},
  };
  return kTable;
}

const Candidate* find_candidate_method(std::string_view method) {
  const auto& table = candidate_table();
  const auto it = std::find_if(table.begin(), table.end(), [&](const Candidate& c) { return c.method == method; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace tailor
