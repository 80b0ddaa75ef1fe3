#include "fit/candidates.h"

#include <algorithm>

#include "fit/methods.h"
#include "fit/tuned_encoder.h"

namespace tailor {

Json to_json(const MachineSpeed& s) {
  return Json{{"gemm_gflops", s.gemm_gflops},
              {"decoder_tokens_per_second", s.decoder_tokens_per_second},
              {"decoder_parameters", s.decoder_parameters},
              {"encoder_tokens_per_second", s.encoder_tokens_per_second},
              {"encoder_parameters", s.encoder_parameters}};
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
      {"majority", "Most frequent label", ModelRole::kNone, false, 0, 0, "one number per label", estimate_majority,
       run_majority, load_majority},
      {"tfidf", "TF-IDF with a linear model", ModelRole::kNone, false, 1, 1, "a weight per word and label, readable",
       estimate_tfidf, run_tfidf, load_tfidf},
      {"features", "Frozen embeddings with logistic regression", ModelRole::kEncoder, false, 2, 3,
       "one linear layer; the base model is unchanged", estimate_features, run_features, load_features},
      {"neighbours", "Nearest neighbours on embeddings", ModelRole::kEncoder, false, 3, 2,
       "nothing; every answer names the rows it comes from", estimate_neighbours, run_neighbours, load_neighbours},
      {"head", "Output layer only", ModelRole::kEncoder, true, 4, 4, "one linear layer; the base model is unchanged",
       estimate_head, run_head, load_tuned_encoder},
      {"zero-shot", "Zero-shot prompting", ModelRole::kDecoder, false, 7, 7, "nothing; the prompt is in plain words",
       estimate_zero_shot, run_zero_shot, load_prompted},
      {"few-shot-retrieved", "Few-shot prompting, retrieved demonstrations", ModelRole::kDecoder, false, 8, 9,
       "nothing; the prompt shows the rows it leans on", estimate_few_shot_retrieved, run_few_shot_retrieved,
       load_prompted},
      {"full", "Full fine-tuning with a classification head", ModelRole::kEncoder, true, 5, 6,
       "every weight of the model", estimate_full, run_full, load_tuned_encoder},
      {"lora", "LoRA with a classification head", ModelRole::kEncoder, true, 6, 5,
       "low-rank updates of linear layers, mergeable and removable", estimate_lora, run_lora, load_tuned_encoder},
      {"few-shot", "Few-shot prompting, random demonstrations", ModelRole::kDecoder, false, 9, 8,
       "nothing; the prompt is in plain words", estimate_few_shot, run_few_shot, load_prompted},
      {"features-decoder", "Frozen decoder states with logistic regression", ModelRole::kDecoder, false, 10, 10,
       "one linear layer; the base model is unchanged", estimate_features, run_features, load_features},
      {"lora-decoder", "LoRA of the decoder on answer tokens", ModelRole::kDecoder, true, 11, 11,
       "low-rank updates of linear layers, mergeable and removable", estimate_lora_decoder, run_lora_decoder,
       load_prompted},
  };
  return kTable;
}

const Candidate* find_candidate_method(std::string_view method) {
  const auto& table = candidate_table();
  const auto it = std::find_if(table.begin(), table.end(), [&](const Candidate& c) { return c.method == method; });
  return it == table.end() ? nullptr : &*it;
}

}  // namespace tailor
