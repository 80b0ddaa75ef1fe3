#pragma once
/// The package: one directory that holds everything a fitted method needs to answer, and says what it is.
///
///   package/manifest.json   format, versions, method, base model (hash, licence), settings, labels, data hashes,
///   scores,
///                           and every other file with its size and SHA-256
///   package/README.md       the same for a person
///   package/…               the method's own files (head.safetensors, tfidf.json, base.gguf, …)
///
/// While a run is going on, packages of trials point to the base model by absolute path; close_package(…, true) copies
/// it in, so that the final package is whole and can be moved. docs/PACKAGE.md describes the format.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"
#include "fit/classifier.h"

namespace tailor {

inline constexpr int kPackageVersion = 1;

struct BaseModel {
  std::string id;                  // "all-minilm-l6-v2"; empty: the method has none
  std::string kind;                // "encoder" | "decoder"
  std::string file;                // relative to the package or absolute
  std::string sha256;              // of the file
  std::string licence;             // "Apache-2.0", "unknown"
  std::string source;              // where the file came from: the model named by the user, and how it was imported
  std::string source_sha256 = {};  // where `file` holds tuned weights: of the file whose weights were tuned
};

/// What the answers are.
struct PackageTarget {
  enum class Kind : std::uint8_t {
    kLabel,     // one of the labels
    kLabelSet,  // each label by itself: those of at least `threshold`
    kNumber,    // labels[0] names it
    kTags,      // one of the labels for each word (fit/tagger.h)
    kSpan,      // a piece of a text, asked for by a question (fit/question_model.h)
  };
  Kind kind = Kind::kLabel;
  bool spans = true;       // of tags: they mark spans (core/tag_spans.h); else each is for itself
  bool no_answer = false;  // of a span: the text may have none
  double threshold = 0.5;
  std::string separator = "|";     // of a label set: between labels in a cell
  double mean = 0, deviation = 1;  // the head's output times deviation plus mean is the number
};

struct PackageManifest {
  std::string method;
  std::string serving;  // how it answers: a name of serving_kinds(); empty: as the candidate of this method does
  BaseModel base;
  Json settings = Json::object();
  PackageTarget target;
  std::vector<std::string> labels;        // order of all probabilities
  std::vector<std::string> text_columns;  // how `predict --input` finds the text
  std::string text_template;
  double min_confidence = 0;     // answers below it are abstentions
  Json data = Json::object();    // files, hashes, rows, what it was fitted on
  Json scores = Json::object();  // metrics on the test part
  std::string trial = {};  // what made it: the run's name, of fit "run/trial"; empty: a version that kept none did
};

/// SHA-256 of the files that it was fitted, chosen and judged on, as `data` has them: the first is the training file.
std::vector<std::string> data_hashes(const PackageManifest& manifest);
/// The name of the run in this directory, for PackageManifest::trial.
std::string run_name(const std::filesystem::path& run);

/// Writes manifest.json and README.md for the files already in `dir`. Last step of making a package.
Status close_package(const std::filesystem::path& dir, PackageManifest manifest, bool include_base_model);

/// Reads and checks manifest.json: format and version, files present with the recorded size and hash, base model's
/// hash.
Result<PackageManifest> read_package(const std::filesystem::path& dir);

struct PredictOptions {
  int threads = 0;  // 0: all cores
};

/// read_package and the method's loader.
struct LoadedPackage {
  PackageManifest manifest;
  std::unique_ptr<Classifier> classifier;
};
Result<LoadedPackage> load_package(const std::filesystem::path& dir, const PredictOptions& options);
/// The same of a package that read_package() has read.
Result<LoadedPackage> load_package(const std::filesystem::path& dir, PackageManifest manifest,
                                   const PredictOptions& options);

/// Absolute path of the base model's file.
std::filesystem::path base_model_path(const std::filesystem::path& package_dir, const BaseModel& base);

}  // namespace tailor
