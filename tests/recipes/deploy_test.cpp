/// deploy/: what its files name is what the program has, and their times fit each other.

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <set>

#include "config/value.h"
#include "config/yaml.h"
#include "recipes/serve_config.h"
#include "serve/api_routes.h"
#include "serve/http_options.h"
#include "store/api_key.h"
#include "tests/recipes/cli.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

fs::path tree() {
  return std::getenv("TAILOR_SOURCE_DIR");
}

std::string deployed(const char* name) {
  return read_file(tree() / "deploy" / name).value();
}

/// Every match of the first group.
std::vector<std::string> all_of(const std::string& text, const char* pattern) {
  std::vector<std::string> out;
  const std::regex expression(pattern, std::regex::ECMAScript | std::regex::multiline);
  for (std::sregex_iterator at(text.begin(), text.end(), expression), end; at != end; ++at)
    out.push_back((*at)[1].str());
  return out;
}

std::string one_of(const std::string& text, const char* pattern) {
  const auto found = all_of(text, pattern);
  EXPECT_EQ(found.size(), 1U) << pattern;
  return found.empty() ? "" : found.front();
}

/// The objects of deploy/kubernetes.yaml by kind.
std::map<std::string, Json> kubernetes() {
  std::map<std::string, Json> out;
  std::string text = deployed("kubernetes.yaml");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find("\n---\n", begin), text.size());
    const Json object = plain_json(parse_yaml(text.substr(begin, end - begin), "kubernetes.yaml").value());
    out[object["kind"].get<std::string>()] = object;
    begin = end + 5;
  }
  return out;
}

/// Verbs, then flags that the help of these verbs lists, and their values.
void expect_flags(const std::vector<std::string>& words) {
  const auto is_flag = [](const std::string& word) { return word.starts_with("--"); };
  std::vector<std::string> verbs(words.begin(), std::find_if(words.begin(), words.end(), is_flag));
  ASSERT_FALSE(verbs.empty());
  verbs.emplace_back("--help");
  const Outcome help = run(verbs);
  ASSERT_EQ(help.code, 0) << help.err;
  for (const std::string& word : words) {
    EXPECT_TRUE(!is_flag(word) || contains(help.out, word)) << words[0] << " has no " << word;
  }
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; in >> word;) out.push_back(word);
  return out;
}

/// Settings of the environment that the program reads, or that are libraries'.
void expect_variables(const std::vector<std::string>& names) {
  std::string sources;
  for (const char* part : {"src", "apps", "recipes"}) {
    for (const auto& entry : fs::recursive_directory_iterator(tree() / part)) {
      if (entry.path().extension() == ".cpp") sources += read_file(entry.path()).value();
    }
  }
  EXPECT_FALSE(names.empty());
  for (const std::string& name : names) {
    const bool ours = name.starts_with("TAILOR_") || name.starts_with("OMP_");
    EXPECT_TRUE(name == "TMPDIR" || (ours && contains(sources, "\"" + name + "\""))) << name;
  }
}

/// A probe's path must be answered without a key.
void expect_open_route(const std::string& path) {
  const RouteMatch found = find_route("GET", path);
  ASSERT_NE(found.route, nullptr) << path;
  EXPECT_EQ(found.route->scope, ApiScope::kNone) << path;
}

std::uint16_t port_of(const ServeRequest& request) {
  return parse_endpoint(request.listen.at(0)).value().port;
}

TEST(Deploy, TheSettingsThatContainerAndUnitBeginWith) {
  for (const char* file : {"deploy/serve.yaml", "examples/serve.yaml"}) {
    const ServeRequest request = read_serve_config(tree() / file).value();
    EXPECT_TRUE(request.keys_required) << file;
    EXPECT_FALSE(request.served.empty()) << file;
  }
}

TEST(Deploy, Dockerfile) {
  const std::string text = deployed("Dockerfile");
  const ServeRequest request = read_serve_config(tree() / "deploy/serve.yaml").value();
  EXPECT_EQ(one_of(text, "^EXPOSE (.+)$"), std::to_string(port_of(request)));
  expect_open_route(one_of(text, "GET (/\\S+) HTTP"));
  EXPECT_EQ(one_of(text, "/dev/tcp/127\\.0\\.0\\.1/(\\d+)"), std::to_string(port_of(request)));
  std::vector<std::string> command;
  for (const Json& word : parse_json(one_of(text, "^CMD (\\[.+\\])$"), "CMD").value()) command.push_back(word);
  expect_flags(command);
  EXPECT_TRUE(contains(text, "COPY deploy/serve.yaml " + command.back()));
  std::vector<std::string> names;
  for (const std::string& word : words_of(one_of(text, "^ENV (.+)$"))) names.push_back(word.substr(0, word.find('=')));
  expect_variables(names);
  EXPECT_NE(one_of(text, "^USER (\\d+):"), "0");
  EXPECT_GT(seconds(std::stoi(one_of(text, "--stop-timeout (\\d+)"))), request.drain_timeout);
  expect_flags(words_of(one_of(text, "docker exec tailor tailor (.+)$")));
  // Other arguments, on a volume that has no keys yet.
  const std::string page = read_file(tree() / "docs/DEPLOY.md").value();
  const auto other = words_of(one_of(page, "`docker run [^`]* tailor (serve [^`]+)`"));
  expect_flags(other);
  EXPECT_EQ(std::count(other.begin(), other.end(), "--keys-required"), 1);
}

TEST(Deploy, SystemdUnit) {
  const std::string text = deployed("tailor.service");
  const ServeRequest request = read_serve_config(tree() / "deploy/serve.yaml").value();
  expect_flags(words_of(one_of(text, "^ExecStart=/opt/tailor/bin/tailor (.+)$")));
  EXPECT_GT(seconds(std::stoi(one_of(text, "^TimeoutStopSec=(\\d+)s$"))), request.drain_timeout);
  std::vector<std::string> names;
  for (const std::string& line : all_of(text, "^Environment=(.+)$")) {
    for (const std::string& word : words_of(line)) names.push_back(word.substr(0, word.find('=')));
  }
  expect_variables(names);
  expect_flags(words_of(one_of(text, "-- /opt/tailor/bin/tailor (keys .+)$")));
  // The list of keys that stands in for a file that is not there, and the place that serve.yaml would name.
  const std::string fallback = one_of(text, "^SetCredential=keys.yaml:(.*)$");
  EXPECT_TRUE(parse_auth_entries(plain_json(parse_yaml(fallback, "keys.yaml").value()), "keys.yaml").value().empty());
  EXPECT_TRUE(contains(deployed("serve.yaml"), "/run/credentials/tailor.service/keys.yaml"));
}

TEST(Deploy, SystemdUnitHasNoRights) {
  std::istringstream unit(deployed("tailor.service"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(unit, line);) lines.push_back(line);
  for (const char* line : {"User=tailor",
                           "Group=tailor",
                           "UMask=0077",
                           "LimitCORE=0",
                           "NoNewPrivileges=yes",
                           "CapabilityBoundingSet=",
                           "AmbientCapabilities=",
                           "ProtectSystem=strict",
                           "ProtectHome=yes",
                           "PrivateTmp=yes",
                           "PrivateDevices=yes",
                           "PrivateUsers=yes",
                           "PrivateIPC=yes",
                           "ProtectProc=invisible",
                           "ProtectClock=yes",
                           "ProtectHostname=yes",
                           "ProtectKernelLogs=yes",
                           "ProtectKernelModules=yes",
                           "ProtectKernelTunables=yes",
                           "ProtectControlGroups=yes",
                           "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
                           "RestrictNamespaces=yes",
                           "RestrictRealtime=yes",
                           "RestrictSUIDSGID=yes",
                           "LockPersonality=yes",
                           "MemoryDenyWriteExecute=yes",
                           "RemoveIPC=yes",
                           "KeyringMode=private",
                           "SystemCallArchitectures=native",
                           "SystemCallFilter=@system-service",
                           "SystemCallFilter=~@privileged"}) {
    EXPECT_EQ(std::count(lines.begin(), lines.end(), line), 1) << line;
    const std::string name = std::string(line).substr(0, std::string(line).find('=') + 1);
    const auto same =
        std::count_if(lines.begin(), lines.end(), [&](const std::string& l) { return l.starts_with(name); });
    EXPECT_EQ(same, name == "SystemCallFilter=" ? 2 : 1) << "a later " << name << " would take its place";
  }
}

TEST(Deploy, KubernetesFilesFitTheProgram) {
  auto objects = kubernetes();
  const Json& pod = objects["Deployment"]["spec"]["template"];
  const Json& spec = pod["spec"];
  const Json& container = spec["containers"][0];
  const std::string settings = objects["ConfigMap"]["data"]["serve.yaml"];
  const ServeRequest request = parse_serve_config(settings, "/etc/tailor/serve.yaml").value();
  EXPECT_TRUE(request.keys_required);
  expect_flags(container["args"].get<std::vector<std::string>>());

  // Ports, by number and by name.
  EXPECT_EQ(container["ports"][0]["containerPort"], port_of(request));
  EXPECT_EQ(pod["metadata"]["annotations"]["prometheus.io/port"], std::to_string(port_of(request)));
  const std::string port = container["ports"][0]["name"];
  EXPECT_EQ(objects["Service"]["spec"]["ports"][0]["targetPort"], port);
  for (const char* probe : {"startupProbe", "livenessProbe", "readinessProbe"}) {
    EXPECT_EQ(container[probe]["httpGet"]["port"], port);
    expect_open_route(container[probe]["httpGet"]["path"]);
  }
  EXPECT_NE(find_route("GET", pod["metadata"]["annotations"]["prometheus.io/path"].get<std::string>()).route, nullptr);

  // What stops the pod waits for preStop and drain.
  const Json& stop = container["lifecycle"]["preStop"]["exec"]["command"];
  ASSERT_EQ(stop[0], "sleep");
  EXPECT_GT(seconds(spec["terminationGracePeriodSeconds"].get<int>()),
            request.drain_timeout + seconds(std::stoi(stop[1].get<std::string>())));

  // Selectors, and every mount has its volume.
  EXPECT_EQ(objects["Deployment"]["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
  EXPECT_EQ(objects["Service"]["spec"]["selector"], pod["metadata"]["labels"]);
  std::map<std::string, Json> volumes;
  for (const Json& volume : spec["volumes"]) volumes[volume["name"].get<std::string>()] = volume;
  std::map<std::string, std::string> places;
  for (const Json& mount : container["volumeMounts"]) {
    places[mount["mountPath"].get<std::string>()] = mount["name"].get<std::string>();
    EXPECT_EQ(volumes.count(mount["name"].get<std::string>()), 1U) << mount;
  }
  EXPECT_EQ(places["/etc/tailor/serve.yaml"], "config");
  EXPECT_EQ(volumes["config"]["configMap"]["name"], objects["ConfigMap"]["metadata"]["name"]);
  EXPECT_EQ(volumes["keys"]["secret"]["secretName"], objects["Secret"]["metadata"]["name"]);
  EXPECT_EQ(places[request.keys_file.parent_path().string()], "keys");
  const std::string keys = objects["Secret"]["stringData"][request.keys_file.filename().string()];
  const auto entries = parse_auth_entries(plain_json(parse_yaml(keys, "keys.yaml").value()), "keys.yaml").value();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(to_string(entries[0].key.scopes), "infer");
  EXPECT_EQ(to_string(entries[1].key.scopes), "metrics") << "of those who scrape";
  EXPECT_FALSE(contains(keys, "key:")) << "a mounted secret is readable by its group: hashes alone";
}

TEST(Deploy, KubernetesPodHasNoRights) {
  auto objects = kubernetes();
  const Json& spec = objects["Deployment"]["spec"]["template"]["spec"];
  const Json& context = spec["containers"][0]["securityContext"];
  EXPECT_EQ(spec["securityContext"]["runAsNonRoot"], true);
  EXPECT_EQ(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
  EXPECT_EQ(spec["automountServiceAccountToken"], false);
  EXPECT_EQ(context["allowPrivilegeEscalation"], false);
  EXPECT_EQ(context["readOnlyRootFilesystem"], true);
  EXPECT_EQ(context["capabilities"]["drop"], Json::array({"ALL"}));
  EXPECT_EQ(std::to_string(spec["securityContext"]["runAsUser"].get<int>()),
            one_of(deployed("Dockerfile"), "^USER (\\d+):"));
}

TEST(Deploy, WhatTheArchiveHoldsIsThere) {
  const std::string script = read_file(tree() / "scripts/dist.py").value();
  const std::size_t begin = script.find("DOCUMENTS = ("), end = script.find(')', begin);
  ASSERT_NE(begin, std::string::npos);
  const auto names = all_of(script.substr(begin, end - begin), "\"([^\"]+)\"");
  EXPECT_GE(names.size(), 10U);
  for (const std::string& name : names) EXPECT_TRUE(fs::is_regular_file(tree() / name)) << name;
}

}  // namespace
}  // namespace tailor::test
