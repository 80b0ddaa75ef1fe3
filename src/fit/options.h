#pragma once
/// What the user asked of `tailor fit` and, for the data, of `tailor tune`; saved in the run directory, so that a run
/// can be resumed and repeated.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace tailor {

/// Which rows, which columns, which part is held out.
struct DataOptions {
  std::filesystem::path data;
  std::filesystem::path validation_file;  // empty: split from data
  std::filesystem::path test_file;        // empty: split from data
  std::vector<std::string> text_columns;
  std::string text_template;  // "{subject}: {body}"; empty: columns joined by a newline
  std::string label_column;
  std::string encoding;  // empty: UTF-8, or UTF-16 by its mark
  char delimiter = 0;    // 0: found out
  std::uint64_t max_text_bytes = std::uint64_t{1} << 20;
  double validation_fraction = 0.15;
  double test_fraction = 0.2;
  std::uint64_t seed = 1;  // of everything random
};

struct FitOptions : DataOptions {
  // search
  std::vector<std::string> models;   // names or paths; empty: the two default models
  std::vector<std::string> methods;  // empty: all
  double budget_seconds = 900;
  int threads = 0;                     // 0: all cores
  std::uint64_t memory_cap_bytes = 0;  // 0: what the machine has
  // decision
  std::string metric = "accuracy";     // accuracy | macro_f1 | f1:<label> | cost:<file>
  double tie_margin = 0.005;           // a difference up to this that is also not significant counts as a tie
  double max_latency_ms = 0;           // p95 of one request; 0: no limit
  std::uint64_t max_size_bytes = 0;    // package with base model
  std::uint64_t max_memory_bytes = 0;  // peak of answering
  double price_per_hour = 0.10;        // of this machine, in the user's currency
  double requests_per_day = 0;
  std::string out_of_scope_label;  // empty: found by name ("out_of_scope", "oos", "other", …)
  double min_confidence = 0;       // stored in the package
  // advice: answers to the questions of `tailor advise`; "yes", "no", "unknown"
  std::map<std::string, std::string> answers;
  // output
  std::filesystem::path out;
  bool no_texts = false;
  bool dry_run = false;
};

/// What the user asked of `tailor tune`: one method on one model.
struct TuneOptions : DataOptions {
  std::string method = "lora";
  std::string task;             // "": labels, or texts to answer like; "regression", "multi-label": of label_column
  std::string label_separator;  // multi-label: what stands between labels in a cell; empty: |
  bool export_hugging_face = false;  // encoders: also a directory that transformers reads
  std::string model;                 // name or path; empty: the default model that suits the method
  Json settings = Json::object();    // docs/TUNE_JOB.md, "Settings"; what is not there is the method's default
  Json job = Json::object();         // docs/TUNE_JOB.md: keys of the job itself, such as evaluate_every_steps
  std::string metric;                // accuracy | macro_f1 | loss: which values are kept; empty: accuracy, texts: loss
  int patience = 0;                  // evaluations without a better metric before training stops; 0: never
  bool head_start = true;            // encoders: the head starts at a logistic regression on the untouched vectors
  bool refit = false;  // labels: train once more, on training and validation rows, for as many epochs as were the best
  std::string label_names = "auto";       // encoders: whether labels' names are learnt from: auto, always, never
  int threads = 0;                        // 0: all cores
  std::filesystem::path adapter;          // low-rank methods: the one that is gone on with; empty: a new one
  std::vector<std::string> added_tokens;  // decoders
  std::string init_text;  // soft prompts: a text whose tokens the virtual ones begin as; empty: by settings
  // method distill
  std::filesystem::path teacher;          // labels: a package, or a file of answers; texts: a package or model
  std::filesystem::path unlabelled_file;  // labels: texts that the teacher alone answers; empty: none
  int teacher_tokens = 512;               // texts: of an answer, at most; longer ones are not learnt
  // texts alone
  std::size_t max_tokens = 0;                // of a row; longer ones lose their end. 0: 2048, or what the model reads
  Json template_variables = Json::object();  // of the model's chat template, such as {"enable_thinking": false}
  std::string template_date;  // that the template shows (infer/chat_template.h); empty: when the run begins
  std::size_t answers = 32;   // test rows that are answered before and after, to be compared
  std::string quantize;       // blocks of the package's model (model/requantize.h); empty: f16
  bool dry_run = false;
  std::filesystem::path out;
};

Json to_json(const FitOptions& options);
Json to_json(const TuneOptions& options);
/// From run.json: "options", with files that were named from "directory" found there.
Result<FitOptions> fit_options_of_run(const Json& run);
Result<TuneOptions> tune_options_of_run(const Json& run);

}  // namespace tailor
