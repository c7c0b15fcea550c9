// Fields of a configuration that are newer than a plugin, with plugins that are older.
#include <capnp/message.h>

#include <optional>

#include "host/config/annotations.h"
#include "host/plugin/registry.h"
#include "host/plugin/testing.h"
#include "tests/support/built.h"
#include "vmmhost/config_fields.h"

namespace vmmhost::plugin {
namespace {

using namespace testing;

std::uint16_t sinceOf(const ConfigField& field) {
  return field.enumerant ? config::sinceOf(*field.enumerant) : config::sinceOf(field.field);
}

// What of vm.capnp a plugin of version 1.`minor` does not know and would have to.
std::vector<ConfigField> fieldsNewerThan(std::uint16_t minor) {
  std::vector<ConfigField> newer;
  std::string kept = "-";  // begins no name
  for (ConfigField& field : configFields(capnp::Schema::from<schema::VmConfig>())) {
    if (config::hasAnnotation(field.field, config::kKeptByHostAnnotation)) {
      kept = field.name + '.';
    } else if (!field.name.starts_with(kept) && sinceOf(field) > minor) {
      newer.push_back(std::move(field));
    }
  }
  return newer;
}

// Names separated by commas, without one of them.
std::string namesOf(const std::vector<ConfigField>& fields, const std::string& without = {}) {
  std::string names;
  for (const ConfigField& field : fields) {
    if (field.name != without) {
      names += (names.empty() ? "" : ",") + field.name;
    }
  }
  return names;
}

class OlderPluginTest : public ::testing::Test {
 protected:
  // A copy of a plugin's file where the registry looks.
  void install(const fs::path& file) {
    fs::create_directories(root / "plugins");
    fs::copy_file(file, root / "plugins" / file.filename());
    ::chmod((root / "plugins" / file.filename()).c_str(), 0755);
  }
  void installOlder() { install(tests::built("lib/test-plugins/vmmhost-backend-olderminor.so")); }

  Registry registry() {
    RegistryOptions options;
    options.pluginPath = (root / "plugins").string();
    options.probeProgram = tests::built("bin/vmmhost-plugin-probe");
    options.probeTimeout = std::chrono::seconds(20);
    options.cacheDirectory = cacheDirectory;
    return Registry(options);
  }

  // How a plugin that is in this process answers to a configuration with this field set; nothing: it takes it.
  static std::optional<Error> answer(Plugin& plugin, const ConfigField& field) {
    capnp::MallocMessageBuilder message;
    auto config = message.initRoot<schema::VmConfig>();
    field.set(capnp::toDynamic(config));
    try {
      plugin.validate(config.asReader());
    } catch (const Error& error) {
      return error;
    }
    return std::nullopt;
  }

  static void expectRefusal(const std::optional<Error>& error, const std::string& backend, const ConfigField& field,
                            const std::string& version) {
    ASSERT_TRUE(error) << field.name << " was ignored in silence";
    EXPECT_EQ(error->code(), ErrorCode::kUnsupported) << field.name;
    const std::string prefix = "backend " + backend + ": ";
    ASSERT_TRUE(error->message().starts_with(prefix)) << error->message();
    const std::string message = error->message().substr(prefix.size());
    const std::string value = field.enumerant ? field.enumerant->getProto().getName().cStr() : "";
    const std::string refused = config_fields::refusedName(message) + (value.empty() ? "" : '.' + value);
    EXPECT_EQ(refused, field.name) << message;
    EXPECT_EQ(error->field(), message.substr(0, message.find(": ")));
    const std::string reason = (value.empty() ? "" : '"' + value + "\" ") + "came with version 1." +
                               std::to_string(sinceOf(field)) +
                               " of the plugin interface, and this plugin was built for version " + version;
    EXPECT_EQ(message.substr(message.find(": ") + 2), reason);
    EXPECT_NE(error->hint().find(message.substr(0, message.find(": "))), std::string::npos) << error->hint();
  }

  Folder folder;
  fs::path root = fs::canonical(folder.path());
  std::string cacheDirectory;
};

// All of today's fields: the plugin is older than any of them, and names every one but that which is set.
TEST_F(OlderPluginTest, eachNewerField_isRefusedByName_unlessTheProbeNamesIt) {
  installOlder();
  const std::vector<ConfigField> newer = fieldsNewerThan(0);
  ASSERT_GT(newer.size(), 60U);
  for (const ConfigField& field : newer) {
    const Variable named("VMMHOST_TEST_CONFIG_FIELDS", namesOf(newer, field.name));
    expectRefusal(answer(*registry().load("olderminor"), field), "olderminor", field, "1.0");
  }
  const Variable named("VMMHOST_TEST_CONFIG_FIELDS", namesOf(newer));
  const std::shared_ptr<Plugin> plugin = registry().load("olderminor");
  for (const ConfigField& field : newer) {
    const auto error = answer(*plugin, field);
    EXPECT_FALSE(error) << field.name << ": " << error->message();
  }
}

TEST_F(OlderPluginTest, pluginOfThisVersion_isGivenEveryField) {
  install(tests::built("lib/test-plugins/vmmhost-backend-good.so"));
  const std::shared_ptr<Plugin> plugin = registry().load("good");
  for (const ConfigField& field : configFields(capnp::Schema::from<schema::VmConfig>())) {
    const auto error = answer(*plugin, field);
    EXPECT_FALSE(error) << field.name << ": " << error->message();
  }
}

TEST_F(OlderPluginTest, newerField_isNotPlannedWith) {
  installOlder();
  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<schema::VmConfig>();
  config.initNics(2)[1].initAttachment().setNetwork("lan");
  const Variable named("VMMHOST_TEST_CONFIG_FIELDS", "nics");
  const Error error = errorOf([&] { registry().load("olderminor")->plan(config.asReader()); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_TRUE(error.message().starts_with("backend olderminor: nics[1].attachment.network: came with"))
      << error.message();
}

TEST_F(OlderPluginTest, namesThatAProbeGave_areKeptWithItsAnswer) {
  installOlder();
  cacheDirectory = (root / "cache").string();
  const std::vector<ConfigField> newer = fieldsNewerThan(0);
  const ConfigField& field = newer.front();
  {
    const Variable named("VMMHOST_TEST_CONFIG_FIELDS", namesOf(newer));
    EXPECT_FALSE(answer(*registry().load("olderminor"), field));
  }
  EXPECT_FALSE(answer(*registry().load("olderminor"), field));
  fs::remove_all(cacheDirectory);
  EXPECT_TRUE(answer(*registry().load("olderminor"), field));
}

TEST_F(OlderPluginTest, namesThatAreNone_areAFaultOfThePlugin) {
  installOlder();
  const auto fault = [&](const std::string& names) {
    const Variable named("VMMHOST_TEST_CONFIG_FIELDS", names);
    const BackendInfo info = registry().probe("olderminor", false);
    return info.error ? info.error->message() : "none";
  };
  EXPECT_EQ(fault("a,b.c,nics.attachment.network9"), "none");
  for (const std::string& bad :
       {std::string("nics[0].mac"), std::string("nics..mac"), std::string(".nics"), std::string("nics."),
        std::string("9lives"), std::string("a b"), "nics." + std::string(124, 'a')}) {
    EXPECT_EQ(fault("nics," + bad),
              "backend olderminor: its probe answered a field of a configuration that is no name such as "
              "nics.attachment.network")
        << bad;
  }
  std::string many = "a";
  for (int count = 1; count < 256; ++count) {
    many += ",a";
  }
  EXPECT_EQ(fault(many), "none");
  EXPECT_EQ(fault(many + ",a"),
            "backend olderminor: its probe answered too many fields of a configuration, or none where it counted some");
}

// Whoever adds a field to vm.capnp adds its name here: the plugins below, which do not know it, are given it.
TEST(NewerFields, since11_areThese) {
  std::vector<std::string> names;
  for (const ConfigField& field : fieldsNewerThan(1)) {
    names.push_back(field.name);
  }
  EXPECT_EQ(names, std::vector<std::string>{});
}

#ifndef VMMHOST_SANITIZED  // tests/compat is not built then
// Plugins as they were built for version 1.1 of the interface.
TEST_F(OlderPluginTest, pluginOfVersion11_isGivenNoNewerField) {
  const fs::path compat = tests::built("lib/compat-plugins/1.1");
  constexpr std::string_view kPrefix = "vmmhost-backend-";
  int plugins = 0;
  for (const auto& entry : fs::directory_iterator(compat)) {
    std::string name = entry.path().stem().string();
    if (!name.starts_with(kPrefix) || entry.path().extension() != ".so") {
      continue;
    }
    name.erase(0, kPrefix.size());
    ++plugins;
    install(entry.path());
    const std::shared_ptr<Plugin> plugin = registry().load(name);
    for (const ConfigField& field : fieldsNewerThan(1)) {
      expectRefusal(answer(*plugin, field), name, field, "1.1");
    }
    // What it knows reaches it; what it says to that is its own affair.
    for (const ConfigField& field : configFields(capnp::Schema::from<schema::VmConfig>())) {
      const auto error = sinceOf(field) <= 1 ? answer(*plugin, field) : std::nullopt;
      EXPECT_FALSE(error && error->message().find("came with version") != std::string::npos) << error->message();
    }
  }
  EXPECT_GE(plugins, 2);
}
#endif

}  // namespace
}  // namespace vmmhost::plugin
