// The command's pure parts, by running it: usage, configuration, exit codes, machine-readable output.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "host/cli/test_command.h"

namespace vmmhost::cli {
namespace {

using Json = nlohmann::json;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Usage, wrongUsage_is125WithOneLineAndAHint) {
  const TestCommand command;
  const std::vector<std::vector<std::string>> wrong = {
      {},       {"nonsense"},      {"run", "--nonsense"},  {"run", "extra"},
      {"stop"}, {"run", "--cpus"}, {"completion", "tcsh"}, {"logs"},
      {"rm"},   {"inspect"}};
  for (const auto& arguments : wrong) {
    const auto result = command.run(arguments);
    const std::string shown = arguments.empty() ? "(nothing)" : arguments[0];
    EXPECT_EQ(result.exitCode, 125) << shown;
    EXPECT_EQ(result.out, "") << shown;
    EXPECT_EQ(result.err.rfind("vmmhost: ", 0), 0u) << shown << ": " << result.err;
    EXPECT_TRUE(contains(result.err, "\nhint: ")) << shown << ": " << result.err;
  }
  EXPECT_TRUE(contains(command.run({"nonsense"}).err, "\"nonsense\""));
  EXPECT_TRUE(contains(command.run({"run", "--cpuss", "3"}).err, "--cpuss 3"));
}

TEST(Usage, wrongUsageWithJson_isOneDocument) {
  const TestCommand command;
  const auto result = command.run({"run", "--nonsense", "--json"});
  EXPECT_EQ(result.exitCode, 125);
  EXPECT_EQ(result.err, "");
  const Json error = Json::parse(result.out)["error"];
  EXPECT_EQ(error["code"], "invalidArgument");
  EXPECT_TRUE(contains(error["message"], "--nonsense"));
  EXPECT_TRUE(error["hint"].is_string());
  EXPECT_EQ(error["retryable"], false);
}

TEST(Usage, help_is0AndOnStandardOutput) {
  const TestCommand command;
  for (const char* verb :
       {"run", "ps", "inspect", "logs", "console", "vsock", "shutdown", "stop", "pause", "resume", "reset", "balloon",
        "wait", "rm", "backends", "conformance", "doctor", "version", "completion"}) {
    const auto result = command.run({verb, "--help"});
    EXPECT_EQ(result.exitCode, 0) << verb;
    EXPECT_TRUE(contains(result.out, std::string("vmmhost ") + verb)) << verb;
    EXPECT_EQ(result.err, "") << verb;
    EXPECT_TRUE(contains(command.run({"--help"}).out, std::string("\n  ") + verb + " ")) << verb;
  }
}

TEST(InspectConfig, flagsAndFile_printTheSame) {
  const TestCommand command;
  const std::string file = command.writeFile("vm.json", R"({"name":"v","boot":{"kernel":"k","cmdline":"a b"},
    "cpus":{"count":2},"memory":{"size":"1G"},"disks":[{"file":"d","readOnly":true}]})");
  const auto fromFile = command.run({"inspect", "--config", "-f", file});
  const auto fromFlags = command.run({"inspect", "--config", "--name", "v", "--kernel", "k", "--cmdline", "a b",
                                      "--cpus", "2", "--memory", "1G", "--disk", "d,ro"});
  EXPECT_EQ(fromFile.exitCode, 0) << fromFile.err;
  EXPECT_EQ(fromFile.out, fromFlags.out);
  const Json json = Json::parse(fromFile.out);
  EXPECT_EQ(json["memory"]["size"], 1073741824);
  EXPECT_EQ(json["disks"][0]["readOnly"], true);
  // What it prints is a configuration.
  const auto again = command.run({"inspect", "--config", "-f", "-"}, fromFile.out);
  EXPECT_EQ(again.out, fromFile.out) << again.err;
}

TEST(InspectConfig, mistakes_areNamed) {
  const TestCommand command;
  const std::string file = command.writeFile("vm.json", R"({"boot":{"kernel":"k"},"disks":[{},{"readonly":true}]})");
  const auto member = command.run({"inspect", "--config", "-f", file});
  EXPECT_EQ(member.exitCode, 125);
  EXPECT_EQ(member.err, "vmmhost: " + file +
                            ": disks[1].readonly: there is no such member\n"
                            "hint: members here: file, readOnly, id, serial, cache, format\n");
  const auto missing = command.run({"run", "-f", "/nonexistent/vm.json"});
  EXPECT_EQ(missing.exitCode, 127);
  EXPECT_TRUE(contains(missing.err, "/nonexistent/vm.json")) << missing.err;
  const auto cpus = command.run({"run", "--kernel", "k", "--cpus", "0"});
  EXPECT_EQ(cpus.exitCode, 125);
  EXPECT_EQ(cpus.err, "vmmhost: cpus.count: 0 is out of range; expected 1 to 254\n");
  const auto name = command.run({"run", "--kernel", "k", "--name", "../x"});
  EXPECT_EQ(name.exitCode, 125);
  EXPECT_TRUE(contains(name.err, "name: \"../x\" is not a name for a VM")) << name.err;
  const auto timeout = command.run({"run", "--kernel", "k", "--timeout", "-1"});
  EXPECT_EQ(timeout.exitCode, 125);
  EXPECT_TRUE(contains(timeout.err, "--timeout")) << timeout.err;
}

TEST(Verbs, unknownVm_is127AndNamed) {
  const TestCommand command;
  const std::vector<std::vector<std::string>> verbs = {
      {"inspect", "nosuch"}, {"logs", "nosuch"},  {"console", "nosuch"}, {"shutdown", "nosuch"},
      {"stop", "nosuch"},    {"pause", "nosuch"}, {"resume", "nosuch"},  {"reset", "nosuch"},
      {"wait", "nosuch"},    {"rm", "nosuch"},    {"rm", "-f", "nosuch"}};
  for (const auto& arguments : verbs) {
    const auto result = command.run(arguments);
    EXPECT_EQ(result.exitCode, 127) << arguments[0];
    EXPECT_TRUE(contains(result.err, "nosuch")) << arguments[0] << ": " << result.err;
  }
  const auto json = command.run({"stop", "nosuch", "--json"});
  EXPECT_EQ(Json::parse(json.out)["error"]["code"], "notFound");
}

TEST(Ps, nothing_isAHeadingOrAnEmptyList) {
  const TestCommand command;
  EXPECT_EQ(command.run({"ps"}).out, "NAME  BACKEND  STATE  CPUS  MEMORY  UPTIME  PID\n");
  EXPECT_EQ(Json::parse(command.run({"ps", "-a", "--json"}).out), Json::array());
}

TEST(Version, isMachineReadable) {
  const TestCommand command;
  const Json json = Json::parse(command.run({"version", "--json"}).out);
  EXPECT_TRUE(contains(command.run({"version"}).out, "vmmhost " + json["version"].get<std::string>()));
  EXPECT_EQ(json["pluginAbi"], "1.2");
}

TEST(Output, fullDisk_isAnError) {
  const TestCommand command;
  const int status = std::system(("'" + command.folder() + "/bin/vmmhost' version > /dev/full 2>&1").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 125);
}

TEST(Completion, script_isValidBash) {
  const TestCommand command;
  const auto result = command.run({"completion", "bash"});
  ASSERT_EQ(result.exitCode, 0);
  const std::string file = command.writeFile("completion", result.out);
  EXPECT_EQ(std::system(("bash -n '" + file + "'").c_str()), 0);
}

// Completes a command line in a real bash, with the command in its PATH.
std::string complete(const TestCommand& command, const std::string& words) {
  const auto script = command.run({"completion", "bash"});
  const std::string file = command.writeFile("completion", script.out);
  const std::string program = command.writeFile(
      "ask", "PATH='" + command.folder() + "/bin':$PATH\nsource '" + file + "'\nCOMP_WORDS=(vmmhost " + words +
                 ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_vmmhost\necho \"${COMPREPLY[*]}\" > '" + command.folder() +
                 "/answer'\n");
  EXPECT_EQ(std::system(("bash '" + program + "'").c_str()), 0);
  std::string answer;
  std::getline(std::ifstream(command.folder() + "/answer"), answer);
  return answer;
}

TEST(Completion, verbsAndFlags_areCompleted) {
  const TestCommand command;
  EXPECT_EQ(complete(command, "re"), "resume reset");
  EXPECT_EQ(complete(command, "run --me"), "--memory");
  EXPECT_EQ(complete(command, "logs -"), "-h --help -f --follow --port --vmm --json");
  EXPECT_EQ(complete(command, "completion b"), "bash");
  EXPECT_TRUE(contains(complete(command, "run --kernel '" + command.folder() + "/bi'"), "/bin"));
}

TEST(Completion, backends_areCompleted) {
  const TestCommand command;
  command.writeFile("plugins/vmmhost-backend-special.so", "");
  EXPECT_EQ(complete(command, "run --backend a"), "auto");
  // The names come from the environment of the shell that asks.
  ::setenv("VMMHOST_PLUGIN_PATH", (command.folder() + "/plugins").c_str(), 1);
  EXPECT_EQ(complete(command, "run --backend sp"), "special");
  ::unsetenv("VMMHOST_PLUGIN_PATH");
}

}  // namespace
}  // namespace vmmhost::cli
