#include "recipes/tune_teacher.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/files.h"
#include "core/hash.h"
#include "eval/intervals.h"
#include "fit/teacher.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

/// Appends the texts to the data without labels; returns their ids.
Result<std::vector<std::uint32_t>> add_unlabelled(const TuneOptions& options, PreparedData& data,
                                                  const TokenParts& parts, RunUi& ui) {
  std::vector<std::uint32_t> ids;
  if (options.unlabelled_file.empty()) return ids;
  DataReport report;
  const ColumnSpec columns{options.text_columns, options.text_template, ""};
  TAILOR_TRY(
      const PredictionInput input,
      load_texts(options.unlabelled_file, columns,
                 {options.delimiter, options.encoding, static_cast<std::size_t>(options.max_text_bytes)}, report));
  Dataset& set = data.dataset;
  std::vector<std::uint32_t> held_out = parts.validation.ids;
  held_out.insert(held_out.end(), parts.test.ids.begin(), parts.test.ids.end());
  for (std::size_t i = 0; i < input.texts.size(); ++i) {
    if (input.texts[i].find_first_not_of(" \t\r\n") == std::string::npos) continue;
    ids.push_back(static_cast<std::uint32_t>(set.size()));
    set.texts.push_back(input.texts[i]);
    set.labels.push_back(-1);
    set.lines.push_back(input.lines[i]);
    set.file_of.push_back(static_cast<std::uint8_t>(set.files.size()));
  }
  set.files.push_back(options.unlabelled_file.string());
  TAILOR_TRY(std::string hash, sha256_file(options.unlabelled_file));
  data.file_hashes.push_back(std::move(hash));
  const Leaks leaks = find_leaks(set, ids, held_out);
  std::unordered_set<std::uint32_t> leaked;
  for (const auto* pairs : {&leaks.exact, &leaks.near}) {
    for (const NearPair& pair : *pairs) leaked.insert(pair.first);
  }
  std::erase_if(ids, [&](std::uint32_t id) { return leaked.contains(id); });
  if (!leaked.empty())
    ui.warning(fmt::format("{} text(s) of {} stand in the validation or test part too, and are left out", leaked.size(),
                           options.unlabelled_file.string()));
  if (ids.empty())
    return Error{ErrorCode::kInvalidArgument, options.unlabelled_file.string() + " holds no text to learn from",
                 "leave --unlabelled out"};
  return ids;
}

/// What is known of the teacher's fairness, and what follows from it.
Result<Json> judge(const Teacher& teacher, const TuneOptions& options, const PreparedData& data, TokenParts& parts,
                   RunUi& ui) {
  Json about{{"source", options.teacher.string()}, {"kind", teacher.is_package() ? "package" : "answers"}};
  if (!teacher.is_package()) {
    ui.note(
        "A file of answers does not say what the teacher learnt from: it must not have seen the labels of validation "
        "and "
        "test rows.");
    return about;
  }
  const PackageManifest& manifest = teacher.manifest();
  about["method"] = manifest.method;
  about["base_model"] = manifest.base.id;
  const TeacherSaw saw = what_it_saw(manifest, data, options.seed);
  about["learnt_from"] =
      saw.known ? Json{{"train", saw.train}, {"validation", saw.validation}, {"test", saw.test}} : Json(nullptr);
  if (saw.test) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the teacher {} learnt from {} by another split, and so from rows of the test part",
                             options.teacher.string(), options.data.string()),
                 "give the --seed and fractions that it was made with, or --test with rows that it has not seen"};
  }
  if (saw.validation && parts.validation.size() > 0) {
    ui.note(
        "The teacher learnt from the validation rows, so they cannot choose the student: it learns from them too, and "
        "its last values are kept.");
    parts.train.ids.insert(parts.train.ids.end(), parts.validation.ids.begin(), parts.validation.ids.end());
    parts.validation.ids.clear();
  }
  if (saw.train && options.unlabelled_file.empty())
    ui.note(
        "The teacher learnt from the rows that it teaches: there it is surer than on new texts. --unlabelled gives the "
        "student texts that neither has seen.");
  return about;
}

std::vector<std::uint32_t> joined(std::initializer_list<const std::vector<std::uint32_t>*> lists) {
  std::vector<std::uint32_t> all;
  for (const auto* list : lists) all.insert(all.end(), list->begin(), list->end());
  return all;
}

/// Answers of the teacher in the file that later runs read.
Status ask(Teacher& teacher, const PreparedData& data, const RowSet& rows, const fs::path& to,
           const ProgressFn& progress, const CancelToken& cancel) {
  const std::vector<std::int64_t> numbers(rows.ids.begin(), rows.ids.end());
  TAILOR_TRY(const TeacherAnswers answers, teacher.answer(data.texts_of(rows), numbers, progress, cancel));
  RowSet answered;
  Matrix kept(answers.answered, answers.probabilities.cols);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (answers.given[i] == 0) continue;
    const auto from = answers.probabilities.row(i);
    std::copy(from.begin(), from.end(), kept.row(answered.size()).begin());
    answered.ids.push_back(rows.ids[i]);
  }
  return save_predictions(to, make_predictions(answered.ids, data.labels_of(answered), std::move(kept)),
                          data.label_names());
}

/// Of the test rows, where all of them were answered.
Json test_scores(const Predictions& answers, const TokenParts& parts, const PreparedData& data, std::uint64_t seed) {
  const std::unordered_set<std::int64_t> test(parts.test.ids.begin(), parts.test.ids.end());
  std::vector<int> truth, predicted;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (!test.contains(answers.rows[i])) continue;
    truth.push_back(answers.truth[i]);
    predicted.push_back(answers.predicted[i]);
  }
  if (truth.empty() || truth.size() < test.size()) return nullptr;
  const auto scores = bootstrap_scores(truth, predicted, static_cast<int>(data.label_names().size()), {.seed = seed});
  return Json{{"n_scored", truth.size()}, {"metrics", to_json(scores)}};
}

}  // namespace

Result<Taught> ask_teacher(const TuneOptions& options, PreparedData& data, TokenParts& parts, int threads, RunUi& ui,
                           const ProgressFn& progress, const CancelToken& cancel) {
  ui.stage("asking the teacher");
  TAILOR_TRY(Teacher teacher, Teacher::open(options.teacher, data.label_names(), threads));
  Taught taught;
  TAILOR_TRY(taught.about, judge(teacher, options, data, parts, ui));
  TAILOR_TRY(taught.ids, add_unlabelled(options, data, parts, ui));
  const fs::path file = options.out / kTeacherPredictions;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    const RowSet asked{joined({&parts.train.ids, &taught.ids, &parts.test.ids})};
    TAILOR_CHECK(ask(teacher, data, asked, file, progress, cancel));
  }
  // Read back also in the first run: a resumed one must learn from the same digits.
  TAILOR_TRY(taught.answers, load_predictions(file, data.label_names()));
  const std::unordered_set<std::int64_t> answered(taught.answers.rows.begin(), taught.answers.rows.end());
  const auto count = [&](const std::vector<std::uint32_t>& ids) {
    return std::count_if(ids.begin(), ids.end(), [&](std::uint32_t id) { return answered.contains(id); });
  };
  std::erase_if(taught.ids, [&](std::uint32_t id) { return !answered.contains(id); });
  const auto labelled = count(parts.train.ids);
  if (labelled + static_cast<std::ptrdiff_t>(taught.ids.size()) == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("the teacher {} answers none of the {} training rows", options.teacher.string(),
                             parts.train.size()),
                 "answers are matched by their text, or by the row's number in the data"};
  }
  taught.about["answered"] = Json{{"labelled", labelled}, {"unlabelled", taught.ids.size()}};
  taught.about["test"] = test_scores(taught.answers, parts, data, options.seed);
  return taught;
}

void add_soft_targets(const Taught& taught, TokenFile& file) {
  const auto labels = static_cast<std::size_t>(file.n_labels);
  std::unordered_map<std::int64_t, std::size_t> place;
  for (std::size_t i = 0; i < taught.answers.size(); ++i) place.emplace(taught.answers.rows[i], i);
  file.soft_targets.assign(file.rows() * labels, 0);
  for (std::size_t r = 0; r < file.rows(); ++r) {
    const auto found = place.find(file.row_ids[r]);
    if (file.parts[r] != TokenPart::kTrain || found == place.end()) continue;
    const auto p = taught.answers.probabilities.row(found->second);
    std::copy(p.begin(), p.end(), file.soft_targets.begin() + static_cast<std::ptrdiff_t>(r * labels));
  }
}

}  // namespace tailor
