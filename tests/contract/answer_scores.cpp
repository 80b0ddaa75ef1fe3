// Log probabilities of answers after questions, computed in this process: what the scores of clients are compared with.
// Run:   answer_scores MODEL.gguf < rows.jsonl
// A row is {"question", "choices": [...]}; an answer is a blank and the choice. Prints a JSON line a row, with a number
// a choice: "labels" as `predict` computes them (infer/label_scorer.h), "losses" as texts are scored
// (infer/generator.h).

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <numeric>

#include "core/json.h"
#include "infer/generator.h"
#include "infer/label_scorer.h"

namespace tailor {
namespace {

struct Row {
  TokenList question;
  std::vector<TokenList> answers;
};

Row read_row(const std::string& line, const Tokenizer& tokenizer) {
  const Json json = Json::parse(line);
  const auto question = json.at("question").get<std::string>();
  Row row{tokenizer.encode(question, true, true), {}};
  for (const Json& choice : json.at("choices")) {
    const TokenList whole = tokenizer.encode(question + " " + choice.get<std::string>(), true, true);
    const auto [end, from] = std::mismatch(row.question.begin(), row.question.end(), whole.begin(), whole.end());
    if (end != row.question.end())
      throw Exception({ErrorCode::kInvalidArgument, "the question's last token goes on in an answer: " + line, ""});
    row.answers.emplace_back(from, whole.end());
  }
  return row;
}

std::vector<double> by_losses(Generator& generator, const Row& row) {
  std::vector<double> out;
  for (const TokenList& answer : row.answers) {
    TokenList whole = row.question;
    whole.insert(whole.end(), answer.begin(), answer.end());
    std::vector<std::uint8_t> mask(whole.size(), 0);
    std::fill(mask.begin() + std::ssize(row.question), mask.end(), std::uint8_t{1});
    const std::vector<double> losses = generator.losses(whole, mask, CancelToken()).value();
    out.push_back(-std::accumulate(losses.begin(), losses.end(), 0.0));
  }
  return out;
}

std::vector<double> by_labels(LabelScorer& scorer, const Row& row) {
  scorer.set_labels(row.answers).value();
  return scorer.score_all({&row.question, 1}, {}, CancelToken()).value()[0];
}

}  // namespace
}  // namespace tailor

int main(int argc, char** argv) {
  using namespace tailor;
  if (argc != 2) return 2;
  try {
    Generator generator = Generator::load(argv[1]).value();
    LabelScorer scorer = LabelScorer::load(argv[1]).value();
    for (std::string line; std::getline(std::cin, line);) {
      const Row row = read_row(line, scorer.tokenizer());
      std::puts(dump_json({{"labels", by_labels(scorer, row)}, {"losses", by_losses(generator, row)}}).c_str());
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "answer_scores: %s\n", e.what());
    return 1;
  }
}
