// Keys, packages, the audit log and serve.yaml as people use them: through the program.

#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "core/hash.h"
#include "infer/test_models.h"
#include "serve/metric_parser.h"
#include "serve/test_client.h"
#include "serve/test_server.h"
#include "tests/recipes/cli.h"

namespace tailor {
namespace {

using test::contains;
using test::Outcome;
using test::run;

/// `tailor serve …` until the end of life. Throws where it does not come up.
class Served {
 public:
  Served(std::vector<std::string> arguments, const std::filesystem::path& errors,
         const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    arguments.insert(arguments.begin(), {test::program().string(), "serve"});
    thread_ = std::thread([this, arguments, errors, environment] {
      const auto done = run_process(
          {.command = arguments, .environment = environment, .stderr_file = errors},
          [this](std::string_view line) {
            const std::lock_guard lock(mutex_);
            address_ = std::string(line);
            changed_.notify_all();
          },
          stop_);
      const std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(240), [&] { return !address_.empty() || ended_; });
  }
  ~Served() {
    stop_.cancel();
    thread_.join();
  }
  int port() const { return address_.empty() ? 0 : std::stoi(address_.substr(address_.rfind(':') + 1)); }
  test::Answer get(const std::string& path, const std::string& secret = "") const {
    const std::string key = secret.empty() ? "" : "Authorization: Bearer " + secret + "\r\n";
    return test::TestClient::to_port(static_cast<std::uint16_t>(port()))
        .ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + key + "\r\n");
  }

 private:
  CancelToken stop_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string address_;
  bool ended_ = false;
  std::thread thread_;
};

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

struct Data {
  TemporaryDirectory dir{"tailor-cli"};
  std::string data = (dir.path() / "data").string();
};

TEST(KeysVerb, MakesListsShowsRevokes) {
  const Data d;
  const Outcome made =
      run({"keys", "create", "--data", d.data, "--name", "app", "--requests-per-minute", "60", "--expires", "30d"});
  ASSERT_EQ(made.code, 0) << made.err;
  const std::string secret = first_line(made.out);
  EXPECT_EQ(secret.rfind("tlr-", 0), 0u);
  EXPECT_EQ(made.out, secret + "\n") << "the secret and nothing else";
  EXPECT_FALSE(contains(made.err, secret));
  EXPECT_TRUE(contains(made.err, "60 requests/min"));
  const Outcome listed = run({"keys", "list", "--data", d.data, "--json"});
  ASSERT_EQ(listed.code, 0) << listed.err;
  EXPECT_FALSE(contains(listed.out, secret));
  const Json keys = Json::parse(listed.out);
  ASSERT_EQ(keys.size(), 1u);
  const std::string id = keys[0]["id"];
  EXPECT_EQ(keys[0]["expires_at"].get<std::int64_t>() - keys[0]["created_at"].get<std::int64_t>(), 30 * 86'400);
  EXPECT_EQ(run({"keys", "revoke", "--data", d.data, id}).code, 0);
  EXPECT_TRUE(contains(run({"keys", "show", "--data", d.data, id}).out, "revoked"));
  const Outcome audit = run({"audit", "list", "--data", d.data});
  EXPECT_TRUE(contains(audit.out, "key.create") && contains(audit.out, "key.revoke")) << audit.out;
  EXPECT_FALSE(contains(audit.out, secret));
  const Outcome verified = run({"audit", "verify", "--data", d.data});
  EXPECT_EQ(verified.code, 0);
  EXPECT_TRUE(contains(verified.out, "2 entries, intact; anchor 2:")) << verified.out;
  const std::string anchor = first_line(verified.out.substr(verified.out.find("anchor ") + 7));
  EXPECT_EQ(run({"audit", "verify", "--data", d.data, "--anchor", anchor}).code, 0);
  const Outcome cut = run({"audit", "verify", "--data", d.data, "--anchor", "3" + anchor.substr(1)});
  EXPECT_EQ(cut.code, 2) << cut.out;
}

TEST(KeysVerb, WrongWordsAreToldSo) {
  const Data d;
  const Outcome scope = run({"keys", "create", "--data", d.data, "--name", "a", "--scope", "root"});
  EXPECT_EQ(scope.code, 2);
  EXPECT_TRUE(contains(scope.err, "infer")) << scope.err;
  EXPECT_EQ(run({"keys", "create", "--data", d.data, "--name", "a", "--expires", "tomorrow"}).code, 2);
  EXPECT_EQ(run({"keys", "create", "--data", d.data}).code, 2);
  EXPECT_EQ(run({"keys", "list", "--data", (d.dir.path() / "nowhere").string()}).code, 2) << "reading makes no store";
  run({"keys", "create", "--data", d.data, "--name", "a"});
  EXPECT_EQ(run({"keys", "revoke", "--data", d.data, "key_unknown"}).code, 2);
}

TEST(ServeVerb, OtherMachinesNeedAKey) {
  const Data d;
  const Outcome refused = run({"serve", "--data", d.data, "--model", "smollm2-135m-instruct", "--listen", "0.0.0.0:0"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.err, "there are no keys")) << refused.err;
  EXPECT_TRUE(contains(refused.err, "tailor keys create")) << refused.err;
}

TEST(ServeVerb, WhereKeysAreRequiredTheFirstOneMayComeLater) {
  const Data d;
  const Served server({"--model", testing::tiny_llama().string(), "--threads", "1", "--listen", "0.0.0.0:0",
                       "--keys-required", "--data", d.data},
                      d.dir.path() / "err");
  ASSERT_NE(server.port(), 0) << read_file(d.dir.path() / "err").value();
  EXPECT_EQ(server.get("/readyz").status, 200);
  EXPECT_EQ(server.get("/v1/models").status, 401);
  const std::string secret = first_line(run({"keys", "create", "--data", d.data, "--name", "app"}).out);
  EXPECT_TRUE(test::eventually([&] { return server.get("/v1/models", secret).status == 200; }));
  EXPECT_EQ(server.get("/v1/models").status, 401);
}

/// Each would be plain HTTP to everybody, where somebody asked for TLS.
TEST(ServeVerb, APartOfTlsIsRefusedFromFileFlagsAndBoth) {
  struct Case {
    const char* file;
    std::vector<std::string> flags;
    const char* told;
  };
  const std::vector<Case> cases{
      {"", {"--tls-client-ca", "ca.pem"}, "given client_ca, missing certificate and key"},
      {"", {"--tls-key", "k.pem"}, "given key, missing certificate"},
      {"", {"--tls-certificate", "c.pem"}, "given certificate, missing key"},
      {"tls: {client_ca: ca.pem}\n", {}, "given client_ca, missing certificate and key"},
      {"tls: {key: k.pem}\n", {}, "given key, missing certificate"},
      {"tls: {hsts_days: 30}\n", {}, "given hsts_days, missing certificate and key"},
      {"tls: {certificate: c.pem}\n", {"--tls-client-ca", "ca.pem"}, "given certificate, client_ca, missing key"},
      {"tls: {client_ca: ca.pem}\n", {"--tls-key", "k.pem"}, "given key, client_ca, missing certificate"},
      {"tls: {certificate: c.pem, key: k.pem}\n", {"--tls-certificate", "", "--tls-key", ""}, "--tls-certificate"},
      {"", {"--tls-client-ca", ""}, "--tls-client-ca names no file"},
  };
  const Data d;
  const auto file = d.dir.path() / "serve.yaml", err = d.dir.path() / "err";
  for (const Case& c : cases) {
    std::filesystem::remove(err);
    write_file_atomic(file, c.file).value();
    std::vector<std::string> arguments{"--config", file.string(), "--model", testing::tiny_llama().string(),
                                       "--port",   "0",           "--data",  d.data};
    arguments.insert(arguments.end(), c.flags.begin(), c.flags.end());
    const Served server(arguments, err);
    EXPECT_EQ(server.port(), 0) << c.file << c.told;
    EXPECT_TRUE(contains(read_file(err).value(), c.told)) << read_file(err).value();
  }
}

/// "a_{b,c}_total{model}" of docs/MONITORING.md: a_b_total and a_c_total, with a label.
std::vector<std::string> names_of(std::string word) {
  if (word.ends_with('}')) word.resize(word.rfind('{'));
  const std::size_t open = word.find('{'), close = word.find('}');
  if (open == std::string::npos) return {word};
  std::vector<std::string> out;
  std::istringstream choices(word.substr(open + 1, close - open - 1));
  for (std::string choice; std::getline(choices, choice, ',');)
    out.push_back(word.substr(0, open) + choice + word.substr(close + 1));
  return out;
}

/// The first column of the table of metrics; "*" stands for more of a name.
std::vector<std::string> documented_metrics() {
  const auto page = std::filesystem::path(std::getenv("TAILOR_SOURCE_DIR")) / "docs" / "MONITORING.md";
  std::istringstream lines(read_file(page).value());
  std::vector<std::string> out;
  bool there = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## ")) there = line.starts_with("## Metrics");
    if (!there || !line.starts_with("| `")) continue;
    const std::string cell = line.substr(2, line.find(" |", 2) - 2);
    static const std::regex kCode("`([^`]+)`");
    for (std::sregex_iterator at(cell.begin(), cell.end(), kCode), end; at != end; ++at) {
      for (const std::string& name : names_of((*at)[1].str())) out.push_back("tailor_" + name);
    }
  }
  return out;
}

bool stands_for(const std::string& documented, const std::string& name) {
  const std::size_t star = documented.find('*');
  if (star == std::string::npos) return documented == name;
  return name.starts_with(documented.substr(0, star)) && name.ends_with(documented.substr(star + 1));
}

TEST(ServeVerb, EverySeriesOfTheListIsThereWhateverIsTurnedOff) {
  const Data d;
  const std::vector<std::string> documented = documented_metrics();
  EXPECT_GT(documented.size(), 45u);
  const auto series = [&](const Served& server) {
    std::set<std::string> names, out;
    for (const MetricFamily& family : parse_metrics(server.get("/metrics").body).value()) {
      if (!family.name.starts_with("tailor_")) continue;
      if (!family.samples.empty()) names.insert(family.name);
      EXPECT_TRUE(std::any_of(documented.begin(), documented.end(),
                              [&](const std::string& name) { return stands_for(name, family.name); }))
          << family.name << " is not in docs/MONITORING.md";
      for (const MetricSample& sample : family.samples) {
        std::string text = sample.name;
        for (const auto& [label, value] : sample.labels) text += "," + label + "=" + value;
        out.insert(text);
      }
    }
    for (const std::string& name : documented)
      EXPECT_TRUE(std::any_of(names.begin(), names.end(), [&](const std::string& n) { return stands_for(name, n); }))
          << name << " is not there";
    return out;
  };
  const std::vector<std::string> model{"--model", testing::tiny_llama().string(), "--threads", "1", "--port", "0"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), model.begin(), model.end());
    return more;
  };
  const Served all(with({"--data", d.data, "--trace-endpoint", "http://127.0.0.1:9"}), d.dir.path() / "all");
  const Served least(with({"--no-request-log"}), d.dir.path() / "least",
                     {{"TAILOR_DATA", ""},
                      {"OTEL_EXPORTER_OTLP_ENDPOINT", ""},
                      {"XDG_DATA_HOME", "/proc/nobody-makes-a-directory-here"}});
  ASSERT_NE(all.port(), 0) << read_file(d.dir.path() / "all").value();
  ASSERT_NE(least.port(), 0) << read_file(d.dir.path() / "least").value();
  EXPECT_EQ(series(least), series(all));
}

TEST(ServeVerb, AKeyThatNoStoreCanKeepAccountOfIsNotPassedOver) {
  const Data d;
  const auto err = d.dir.path() / "err";
  const Served server({"--model", "smollm2-135m-instruct", "--port", "0"}, err,
                      {{"TAILOR_API_KEY", "01234567890123456789"},
                       {"TAILOR_DATA", ""},
                       {"XDG_DATA_HOME", "/proc/nobody-makes-a-directory-here"}});
  EXPECT_EQ(server.port(), 0) << "it would let everybody in";
  EXPECT_TRUE(contains(read_file(err).value(), "--data DIR")) << read_file(err).value();
}

TEST(ServeVerb, TheExampleRuns) {
  const Data d;
  const std::filesystem::path example =
      std::filesystem::path(std::getenv("TAILOR_SOURCE_DIR")) / "examples" / "serve.yaml";
  const Served server({"--config", example.string(), "--port", "0", "--data", d.data}, d.dir.path() / "err");
  ASSERT_NE(server.port(), 0) << read_file(d.dir.path() / "err").value();
  EXPECT_EQ(server.get("/readyz").status, 200);
  EXPECT_EQ(server.get("/v1/models").status, 401) << "keys are required";
  const std::string secret = first_line(run({"keys", "create", "--data", d.data, "--name", "app"}).out);
  test::Answer models;
  ASSERT_TRUE(test::eventually([&] { return (models = server.get("/v1/models", secret)).status == 200; }))
      << "a key made while it runs";
  const Json list = Json::parse(models.body)["data"];
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["id"], "chat");
  EXPECT_EQ(list[0]["max_model_len"], 2048);
  EXPECT_EQ(list[1]["id"], "vectors");
}

TEST(ServeVerb, WrongFilesAreToldSo) {
  const Data d;
  const auto file = d.dir.path() / "serve.yaml";
  write_file_atomic(file, "modles: []\n").value();
  const Outcome misspelt = run({"serve", "--config", file.string()});
  EXPECT_EQ(misspelt.code, 2);
  EXPECT_TRUE(contains(misspelt.err, "serve.yaml:1") && contains(misspelt.err, "did you mean models?")) << misspelt.err;
  const auto keys = d.dir.path() / "keys.yaml";
  write_file_atomic(keys, "- {id: a, key: \"01234567890123456789\"}\n").value();
  chmod(keys.c_str(), 0644);
  write_file_atomic(file, "data: data\nkeys: {file: keys.yaml}\nmodels: [{model: smollm2-135m-instruct}]\n").value();
  const Outcome readable = run({"serve", "--config", file.string()});
  EXPECT_EQ(readable.code, 2);
  EXPECT_TRUE(contains(readable.err, "chmod 600")) << readable.err;
  EXPECT_FALSE(contains(readable.err, "01234567890123456789"));
  write_file_atomic(file, "data: data\nmodels: [{stored: support}]\n").value();
  const Outcome unknown = run({"serve", "--config", file.string()});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_TRUE(contains(unknown.err, "serve.yaml:2: there is no package support")) << unknown.err;
}

TEST(PackagesVerb, FromAddToRollback) {
  const Data d;
  const auto csv = d.dir.path() / "rows.csv";
  write_file_atomic(csv, test::small_csv()).value();
  const Outcome fitted = run({"fit", csv.string(), "--text", "message", "--label", "intent", "--methods", "tfidf",
                              "--out", (d.dir.path() / "run").string(), "--budget", "60s"});
  ASSERT_EQ(fitted.code, 0) << fitted.err;
  const std::string package = (d.dir.path() / "run" / "package").string();
  const auto packages = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "packages");
    words.insert(words.begin() + 2, {"--data", d.data});
    return run(words);
  };
  const Outcome added = packages({"add", package, "--name", "support", "--promote"});
  ASSERT_EQ(added.code, 0) << added.err;
  EXPECT_TRUE(contains(added.out, "support@1, in production")) << added.out;
  ASSERT_EQ(packages({"add", package, "--name", "support"}).code, 0);
  EXPECT_EQ(packages({"add", package, "--name", "support", "--version", "2"}).code, 2) << "versions never change";
  EXPECT_EQ(packages({"add", package, "--name", "a@b"}).code, 2);
  ASSERT_EQ(packages({"promote", "support", "2"}).code, 0);
  EXPECT_EQ(packages({"remove", "support", "2"}).code, 2) << "it is in production";
  const Json all = Json::parse(packages({"list", "--json"}).out);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1]["production"], true);
  EXPECT_EQ(all[1]["method"], "tfidf");
  EXPECT_EQ(all[1]["trial"], "run/tfidf");
  EXPECT_EQ(all[1]["data_sha256"], sha256_file(csv).value());
  const std::string shown = packages({"show", "support@1"}).out;
  EXPECT_TRUE(contains(shown, "made by     run/tfidf\n")) << shown;
  EXPECT_TRUE(contains(shown, "data        sha256 " + sha256_file(csv).value() + "\n")) << shown;
  {
    const Served server({"support", "--port", "0", "--data", d.data}, d.dir.path() / "err");
    ASSERT_NE(server.port(), 0) << read_file(d.dir.path() / "err").value();
    const Json model = Json::parse(server.get("/v1/models/support").body);
    EXPECT_EQ(model["meta"]["version"], "2");
  }
  EXPECT_TRUE(contains(packages({"rollback", "support"}).out, "support@1"));
  EXPECT_TRUE(contains(packages({"show", "support"}).out, "rollback"));
  EXPECT_EQ(packages({"remove", "support", "2"}).code, 0);
  EXPECT_TRUE(contains(run({"audit", "verify", "--data", d.data}).out, "6 entries, intact"));
}

}  // namespace
}  // namespace tailor
