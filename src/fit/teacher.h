#pragma once
/// The teacher of method distill: a package that answers with labels, or a file of answers that somebody made.
///
/// A file is CSV or JSONL, a row an answer:
///   {"text": "…", "probabilities": {"a": 0.9, "b": 0.1}}   as `tailor predict --json` writes; matched by the text
///   {"row": 3, "p": [0.9, 0.1]}                            as test_predictions.jsonl; by the row's number in the data,
///                                                          p in the order of the data's labels
///   text,p:a,p:b,…                                         CSV of `tailor predict --output`; by the text

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/cancel.h"
#include "core/matrix.h"
#include "core/progress.h"
#include "core/result.h"
#include "fit/package.h"
#include "fit/prepared_data.h"

namespace tailor {

struct TeacherAnswers {
  Matrix probabilities;             // [texts, labels], each answered row sums to 1
  std::vector<std::uint8_t> given;  // per text: 0 where the teacher has no answer, and the row is 0
  std::size_t answered = 0;
};

/// Threads: one caller at a time.
class Teacher {
 public:
  /// `labels`: those of the student; the teacher's must be the same set, in any order. Errors: neither package nor
  /// file, a package that answers with text, labels that differ, rows that are no answers.
  static Result<Teacher> open(const std::filesystem::path& source, const std::vector<std::string>& labels, int threads);

  /// `rows`: number of each text in the data.
  Result<TeacherAnswers> answer(std::span<const std::string> texts, std::span<const std::int64_t> rows,
                                const ProgressFn& progress, const CancelToken& cancel);

  bool is_package() const { return classifier_ != nullptr; }
  const PackageManifest& manifest() const { return manifest_; }  // empty for a file

 private:
  Status read_file(const std::filesystem::path& file);
  Status add(const std::filesystem::path& file, std::size_t line, std::vector<float> p, const std::string* text,
             const std::int64_t* row);

  std::vector<std::string> labels_;
  PackageManifest manifest_;
  std::unique_ptr<Classifier> classifier_;
  std::vector<std::size_t> own_place_;  // of each label among the package's
  std::unordered_map<std::string, std::vector<float>> by_text_;
  std::unordered_map<std::int64_t, std::vector<float>> by_row_;
};

/// Which of the student's rows a teacher learnt from, as far as its package tells: by the hash of its data file, its
/// seed and its number of rows.
struct TeacherSaw {
  bool known = false;  // false: the package does not say what it was fitted on
  bool train = false, validation = false, test = false;
};
TeacherSaw what_it_saw(const PackageManifest& teacher, const PreparedData& data, std::uint64_t seed);

}  // namespace tailor
