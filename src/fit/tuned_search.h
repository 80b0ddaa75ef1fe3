#pragma once
/// How `tailor fit` searches each method of `tailor tune`: a row for a method and a kind of model. A method joins by
/// one row in tuned_search.cpp; the candidates of candidates.h are made from the rows, and one runner for encoders and
/// one for decoders follow them.

#include <string>
#include <string_view>
#include <vector>

#include "model/catalogue.h"

namespace tailor {

struct TunedSearch {
  std::string_view candidate;  // "dora-decoder": as on the command line and in result.json
  std::string_view method;     // "dora": as tailor-tune names it
  ModelKind kind;
  std::string_view title;
  std::string_view changes;  // what a person can read of what was changed
  bool usual;                // tried before the others share what time is left
  int priority;              // larger: left out first
  int simplicity;            // smaller is simpler to run and explain
  std::vector<double> rates;
  double usual_rate;    // one of them: taken where there is no time for a search
  double head_rate;     // of an encoder's head, at least; 0: the same
  double wanted_steps;  // encoders: about; decides the epochs. 0: most_epochs says them
  double most_epochs;
  double flops;            // per parameter of the layers and token, forward and backward
  double memory;           // bytes per parameter of the model: weights, gradients and moments
  double answer_cost = 1;  // times what the untouched model takes to answer
};

const std::vector<TunedSearch>& tuned_searches();
/// By the candidate's name; null where it has none.
const TunedSearch* find_tuned_search(std::string_view candidate);

/// Why the method cannot tune this model, as far as its description tells; empty: it can.
std::string unsuited(const TunedSearch& search, const ModelInfo& model);

}  // namespace tailor
