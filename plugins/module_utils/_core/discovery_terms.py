# Copyright (c) dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vocabulary of discovery: what columns and tables are called that hold data which auditors ask about.

Names are looked up as runs of whole words, written together, in lower case and without accents: `birth_date`,
`birthDate` and `BIRTHDATE` are all found as `birthdate`. English comes first, then German, French, Spanish, Italian,
Portuguese, Dutch, Polish and Scandinavian words.
"""

from __future__ import annotations

from dataclasses import dataclass

PERSONAL, FINANCIAL, HEALTH = "personal", "financial", "health"
CREDENTIALS, ACCESS = "credentials", "access control"


@dataclass(frozen=True)
class Kind:
    """What a column can hold.

    :ivar weight: how much one such column says that its table has to be audited, 0 to 100.
    :ivar mask: what becomes of its values in the log: `hash`, `redact`, or empty for nothing.
    :ivar values: which types bear the name out: `text` (no number, time or boolean), `value` (no time or boolean),
        `date` (no boolean), `any`.
    :ivar restricted: whether its table is `restricted` for this alone.
    """

    name: str
    category: str
    weight: int
    terms: frozenset[str]
    mask: str = ""
    values: str = "value"
    tags: tuple[str, ...] = ()
    restricted: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _kind(name: str, category: str, weight: int, terms: str, **more: object) -> Kind:
    return Kind(name, category, weight, _words(terms), **more)  # type: ignore[arg-type]


_GDPR = {"tags": ("GDPR",)}
_HEALTH = {"tags": ("GDPR", "HIPAA"), "restricted": True}
_PCI = {"tags": ("PCI",), "restricted": True}
_SOX = {"tags": ("SOX",)}

KINDS = (
    _kind(
        "password",
        CREDENTIALS,
        90,
        """password passwd pwd passphrase passcode passwordhash hashedpassword userpassword userpass encryptedpassword
        passwort kennwort motdepasse mdp contrasena clave parola parolachiave senha palavrapasse wachtwoord haslo
        losenord adgangskode passord salasana""",
        mask="redact",
        values="text",
        restricted=True,
    ),
    _kind(
        "secret or token",
        CREDENTIALS,
        80,
        """secret token apikey apitoken apisecret accesstoken accesskey refreshtoken sessiontoken authtoken bearertoken
        resettoken privatekey secretkey clientsecret webhooksecret signingkey encryptionkey otpsecret totpsecret
        mfasecret twofactorsecret recoverycode backupcode securityanswer pin pinhash credential credentials
        geheimnis zugangsdaten jeton segreto segredo""",
        mask="redact",
        restricted=True,
    ),
    _kind(
        "card number",
        FINANCIAL,
        95,
        """cardnumber cardno cardnum creditcard creditcardnumber creditcardno ccnumber ccnum debitcard pan
        primaryaccountnumber kartennummer kreditkarte kreditkartennummer numerocarte cartebancaire numerotarjeta
        tarjeta tarjetacredito numerocarta cartadicredito numerocartao cartaocredito kaartnummer creditcardnummer
        numerkarty kortnummer""",
        mask="redact",
        **_PCI,
    ),
    _kind(
        "card security code",
        FINANCIAL,
        95,
        "cvv cvv2 cvc cvc2 cav2 cardsecuritycode cardverificationvalue pruefziffer cryptogramme trackdata pinblock",
        mask="redact",
        **_PCI,
    ),
    _kind(
        "card holder or expiry",
        FINANCIAL,
        50,
        "cardholder cardholdername cardexpiry cardexpiration cardexp expmonth expyear karteninhaber titulartarjeta",
        values="any",
        tags=("PCI",),
    ),
    _kind(
        "national identifier",
        PERSONAL,
        90,
        """ssn ssnumber socialsecuritynumber socialsecurityno socialsecurity nationalid nationalidno nationalidnumber
        nationalidentifier nationalinsurancenumber nino personalid personalidno identitynumber identitycard idcard
        idcardnumber citizenid sozialversicherungsnummer svnr svnummer rentenversicherungsnummer personalausweis
        personalausweisnummer ausweisnummer ahvnummer ahv insee nir numerosecuritesociale numerosecu dni nie nif
        curp codicefiscale cpf bsn burgerservicenummer pesel personnummer cprnummer cprnr fodselsnummer
        henkilotunnus hetu rodnecislo aadhaar nhsnumber nhsno""",
        mask="hash",
        **{**_GDPR, "restricted": True},
    ),
    _kind(
        "passport or driving licence",
        PERSONAL,
        80,
        """passport passportno passportnumber passportid driverslicense driverlicense driverslicence driverlicence
        drivinglicence drivinglicense licensenumber licencenumber reisepass reisepassnummer passnummer fuehrerschein
        fuehrerscheinnummer passeport permisconduire pasaporte passaporto patente passaporte paspoort paspoortnummer
        rijbewijs paszport passnr""",
        mask="hash",
        **{**_GDPR, "restricted": True},
    ),
    _kind(
        "tax identifier",
        PERSONAL,
        70,
        """taxid taxnumber taxno taxpayerid tin itin steuerid steuernummer steueridentifikationsnummer numerofiscal
        numerofiscale fiscalcode sofinummer""",
        mask="hash",
        tags=("GDPR", "SOX"),
    ),
    _kind(
        "special category of personal data",
        PERSONAL,
        70,
        """religion ethnicity ethnicorigin race sexualorientation politicalopinion tradeunion unionmember
        criminalrecord konfession ethnie origineethnique religione religiao etnia godsdienst wyznanie""",
        values="any",
        restricted=True,
        **_GDPR,
    ),
    _kind(
        "biometrics",
        PERSONAL,
        85,
        "fingerprint fingerprints biometric biometrics faceprint facetemplate irisscan voiceprint fingerabdruck",
        mask="redact",
        restricted=True,
        **_GDPR,
    ),
    _kind(
        "date of birth",
        PERSONAL,
        60,
        """dob birthdate dateofbirth birthday birth born bornon yearofbirth birthyear geburtsdatum geburtstag gebdatum
        gebdat datenaissance datedenaissance fechanacimiento fechadenacimiento datanascita datadinascita
        datanascimento geboortedatum dataurodzenia fodelsedatum fodselsdato syntymaaika""",
        values="date",
        **_GDPR,
    ),
    _kind(
        "email address",
        PERSONAL,
        50,
        """email mail emailaddress mailaddress emailadresse mailadresse courriel adressemail correo correoelectronico
        epost""",
        values="text",
        **_GDPR,
    ),
    _kind(
        "phone number",
        PERSONAL,
        50,
        """phone phonenumber phoneno telephone telephonenumber tel telno mobile mobilephone mobilenumber mobileno
        cellphone msisdn fax faxnumber homephone workphone telefon telefonnummer handy handynummer mobilnummer
        mobiltelefon telefono telefone telefoon telefoonnummer numerotelephone movil celular cellulare telemovel
        puhelin""",
        **_GDPR,
    ),
    _kind(
        "name of a person",
        PERSONAL,
        45,
        """firstname lastname surname givenname familyname middlename maidenname fullname forename realname legalname
        fname lname personname customername clientname employeename contactname accountholder vorname
        nachname familienname zuname geburtsname nom prenom nomfamille nombre apellido apellidos nombrecompleto
        cognome nomecompleto sobrenome apelido voornaam achternaam imie nazwisko fornamn efternamn fornavn etternavn
        efternavn""",
        values="text",
        **_GDPR,
    ),
    _kind(
        "postal address",
        PERSONAL,
        45,
        """address addressline address1 address2 street streetaddress streetname postcode postalcode zip zipcode
        homeaddress billingaddress shippingaddress deliveryaddress housenumber residence adresse anschrift strasse
        hausnummer plz postleitzahl wohnort codepostal adressepostale direccion calle codigopostal domicilio
        indirizzo endereco adres straat huisnummer adreszamieszkania ulica kodpocztowy adress gata postnummer""",
        **_GDPR,
    ),
    _kind(
        "origin, sex or family",
        PERSONAL,
        35,
        """gender sex nationality citizenship maritalstatus civilstatus placeofbirth birthplace spouse nextofkin
        dependents geschlecht nationalitaet staatsangehoerigkeit familienstand geburtsort sexe nationalite
        lieunaissance etatcivil sexo nacionalidad nacionalidade estadocivil sesso nazionalita luogonascita geslacht
        nationaliteit geboorteplaats plec obywatelstwo""",
        values="any",
        **_GDPR,
    ),
    _kind(
        "location",
        PERSONAL,
        30,
        "latitude longitude lat lng lon geolocation gps gpsposition geopoint coordinates location whereabouts",
        **_GDPR,
    ),
    _kind(
        "online identifier",
        PERSONAL,
        25,
        """ip ipaddress ipaddr clientip remoteip remoteaddr lastip macaddress deviceid advertisingid imei imsi
        useragent username loginname screenname nickname benutzername nomutilisateur usuario utente utilizador
        gebruikersnaam""",
        **_GDPR,
    ),
    _kind(
        "salary or income",
        FINANCIAL,
        75,
        """salary basesalary annualsalary grosssalary netsalary wage wages payrate hourlyrate payroll compensation
        income annualincome earnings severance gehalt lohn einkommen bruttolohn nettolohn jahresgehalt salaire
        remuneration revenu salario sueldo nomina ingresos stipendio reddito retribuzione ordenado vencimento
        salaris loon inkomen wynagrodzenie pensja""",
        tags=("GDPR", "SOX"),
        restricted=True,
    ),
    _kind(
        "bank account",
        FINANCIAL,
        75,
        """iban bban accountno accountnumber accountnum acctno acctnumber bankaccount bankaccountno bankaccountnumber
        routingnumber routingno abanumber sortcode kontonummer kontonr bankverbindung bankkonto numerocompte
        comptebancaire numerocuenta cuentabancaria clabe contocorrente numeroconto contabancaria numeroconta
        rekeningnummer bankrekening numerkonta bankgiro plusgiro""",
        values="text",
        tags=("GDPR", "SOX"),
    ),
    _kind(
        "credit standing",
        FINANCIAL,
        65,
        """creditscore creditrating creditlimit creditworthiness riskscore riskrating schufa bonitaet kreditlimit
        kreditrahmen solvabilite scoring""",
        values="any",
        tags=("GDPR",),
    ),
    _kind(
        "account balance",
        FINANCIAL,
        45,
        "balance accountbalance currentbalance openingbalance closingbalance saldo kontostand solde saldoconto",
        **_SOX,
    ),
    _kind(
        "booking or payment",
        FINANCIAL,
        35,
        """debit credit debitamount creditamount ledger ledgeraccount glaccount journalentry payment paymentamount
        paidamount invoice invoicenumber invoiceno invoiceamount refund refundamount taxamount vatamount buchung
        sachkonto zahlung rechnungsnummer rechnungsbetrag facture montantfacture factura fattura fatura faktura
        factuur payout disbursement""",
        **_SOX,
    ),
    _kind(
        "amount of money",
        FINANCIAL,
        20,
        "amount totalamount netamount grossamount price unitprice betrag montant importe importo",
        **_SOX,
    ),
    _kind(
        "medical record number",
        HEALTH,
        85,
        """mrn medicalrecord medicalrecordno medicalrecordnumber patientno patientnumber patientid patientref chartno
        chartnumber healthid healthcardnumber memberidhealth versichertennummer krankenversichertennummer kvnr
        patientennummer fallnummer ipp numeropatient historiaclinica numerohistoria cartellaclinica patientnummer""",
        **_HEALTH,
    ),
    _kind(
        "diagnosis",
        HEALTH,
        85,
        """diagnosis diagnoses diagnosiscode primarydiagnosis icd icd9 icd10 icd11 icdcode icd10code snomed snomedcode
        drg medicalcondition diagnose diagnosecode befund diagnostic diagnostico diagnosi rozpoznanie anamnesis
        anamnese medicalhistory symptom symptoms prognosis""",
        values="any",
        **_HEALTH,
    ),
    _kind(
        "medication or treatment",
        HEALTH,
        65,
        """medication medications drug drugcode prescription prescriptionno dosage dose treatment treatmentplan
        procedurecode cptcode cpt surgery therapy vaccination vaccine immunization medikament medikation rezept
        dosierung behandlung therapie impfung medicament ordonnance traitement medicamento receta tratamiento
        farmaco ricetta terapia medicijn recept behandeling""",
        values="any",
        **_HEALTH,
    ),
    _kind(
        "laboratory result or vital sign",
        HEALTH,
        60,
        """labresult labresults testresult loinc bloodtype bloodgroup bloodpressure heartrate bmi glucose hba1c hiv
        hivstatus genome genotype dnasequence allergy allergies laborwert blutgruppe allergie groupesanguin
        gruposanguineo grupposanguigno alergia bloedgroep""",
        values="any",
        **_HEALTH,
    ),
    _kind(
        "health or care",
        HEALTH,
        60,
        """health healthstatus healthplan healthinsurance insurancepolicyno disability handicap pregnant pregnancy
        sickleave patient patientname admissiondate dischargedate attendingphysician behinderung schwanger
        krankenkasse krankenversicherung krankmeldung mutuelle arretmaladie discapacidad disabilita deficiencia""",
        values="any",
        **_HEALTH,
    ),
    _kind(
        "permission",
        ACCESS,
        60,
        """permission permissions privilege privileges grant grants grantee acl entitlement entitlements accesslevel
        accessright accessrights securitylevel clearance isadmin admin superuser issuperuser isstaff berechtigung
        berechtigungen zugriffsrecht permisos permiso permesso permessi permissao autorisation droits uprawnienia
        rechten""",
        values="any",
        **_SOX,
    ),
    _kind(
        "role",
        ACCESS,
        40,
        "role roles roleid rolename userrole usergroup usergroups memberof rolle rollen ruolo funktionsrolle",
        values="any",
        **_SOX,
    ),
)

#: Words of a table's name: what they are a hint of, by category.
TABLE_TERMS = {
    PERSONAL: _words(
        """user customer client employee person people contact member subscriber applicant candidate citizen resident
        guest tenant student teacher profile individual beneficiary kunde kunden mitarbeiter personen benutzer
        mitglied bewerber utilisateur employe personne usuario cliente empleado persona utente dipendente
        funcionario pessoa klant medewerker gebruiker klient pracownik kund medarbetare bruger"""
    ),
    FINANCIAL: _words(
        """account invoice payment transaction ledger journal loan mortgage credit payroll salary order refund transfer
        billing card bank rechnung zahlung buchung konto gehalt kredit facture paiement compte factura pago cuenta
        fattura pagamento conto fatura conta factuur betaling rekening faktura platnosc"""
    ),
    HEALTH: _words(
        """patient encounter admission discharge prescription medication diagnosis observation allergy immunization
        appointment clinic hospital lab vaccination claim patienten aufnahme rezept behandlung ordonnance paciente
        receta paziente ricetta"""
    ),
    ACCESS: _words(
        """role permission privilege grant acl entitlement usergroup userrole rolemember access authorization rolle
        berechtigung permiso permesso permissao droit uprawnienie"""
    ),
    CREDENTIALS: _words("credential apikey token session secret password oauth accesstoken"),
}
TABLE_TAGS = {PERSONAL: ("GDPR",), FINANCIAL: ("SOX",), HEALTH: ("GDPR", "HIPAA"), ACCESS: ("SOX",), CREDENTIALS: ()}

#: Whose `name` is a person's.
PEOPLE = TABLE_TERMS[PERSONAL] | _words("patient patienten paciente paziente")

#: A name that says this of something else says nothing of what it holds: email_sent_at, password_attempts, address_id.
WEAK_BEHIND = _words(
    """at on by sent received verified confirmed validated valid invalid count counter counts attempts attempt flag
        enabled disabled active status state type kind format template length len size expires expiry expired
        expiration expiresin ttl changed change updated created reset required policy consent optin optout opt
        preference preferences bounced label field column index idx id ids uuid guid ref date time timestamp day
        year month ts version quality source scheme visible hidden public rules rule limit max min unit currency
        position order subject body reminder notification notifications"""
)
WEAK_BEFORE = _words("is has had can may num number count max min total no allow allows use uses needs show")
